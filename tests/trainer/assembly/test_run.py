"""A rank starts with only the content of its job, whatever the number of shards."""

import os
import shutil
from pathlib import Path
from unittest import mock

import pytest
from support.ranks.rank_jobs import make_job
from support.recipes import tiny_recipe
from support.records.checkpoints import Listener, work_folder

from data_pipeline.batching.plan import Cursor
from data_pipeline.dataset.manifest import open_dataset
from run_store.folder import RunFolder
from trainer.assembly.run import build_rank
from trainer.job.rank_job import ReplayOptions
from trainer.start.opening import open_folder

START = Cursor(epoch=1, window=2)


class Supervisor(Listener):
    def progress(self, phase, step, where=""):
        """Do nothing, because no supervisor waits for this rank."""

    def log_detail(self, text):
        """Do nothing, because the run has no log."""


class StreamOpenedError(Exception):
    """Raised where the rank opens its stream of data."""


def start(placement, job):
    """Build a rank and let it train; return the cursors at which it opens its data stream."""
    opened = []

    def steps(cursor):
        opened.append(cursor)
        raise StreamOpenedError

    with (
        mock.patch.dict(os.environ, WANDB_MODE="disabled"),
        build_rank(job, placement=placement, steps=steps, supervision=Supervisor()) as trainer,
        pytest.raises(StreamOpenedError),
    ):
        trainer.train()
    return opened


@pytest.mark.parametrize("is_replay", [False, True])
def test_a_rank_starts_without_files_of_its_dataset(rank_pools, phrasebook, tmp_path, is_replay):
    copy = Path(shutil.copytree(phrasebook, tmp_path / "copy"))
    recipe, run = tiny_recipe(copy), RunFolder(tmp_path / "run")
    store, manifest = open_dataset(recipe.data)
    open_folder(run, recipe, store, manifest)
    (copy / "manifest.json").unlink()
    shutil.rmtree(copy / "shards")
    job = make_job(
        recipe.training(),
        run.path,
        manifest=manifest.header(),
        cursor=START,
        work=work_folder(run.checkpoints),
        replay=ReplayOptions(tmp_path) if is_replay else None,
    )
    assert rank_pools(1).run(start, job) == [[START]]
