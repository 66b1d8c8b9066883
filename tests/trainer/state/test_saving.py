"""Content of a checkpoint's header; the record is synced before a checkpoint."""

import os
from pathlib import Path
from unittest import mock

import pytest
from support.ranks.engine_jobs import Shape, make_engine
from support.ranks.rank_jobs import IDENTITY, make_job
from support.recipes import tiny_recipe
from support.records.checkpoints import Listener, work_folder
from support.records.lines import train_line
from support.records.progress import FAR

from data_pipeline.batching.plan import Cursor
from run_store.checkpoints.format import CheckpointHeader
from run_store.folder import RunFolder, RunMetadata
from run_store.record.metrics_file import read_metrics
from trainer.job.rank_job import RankContext
from trainer.state.progress import Progress
from trainer.state.restore import TrainingState
from trainer.state.saving import Saver
from trainer.tracking.recorder import Recorder
from trainer.zero import fragments


class Supervisor(Listener):
    def line(self, line):
        """Do nothing, because nothing is displayed."""


def save(placement, folder, final):
    """Return the header that the supervisor gets, and the files synced to the disk, in order."""
    run = RunFolder(folder)
    card = RunMetadata(id="abcd1234", name="r", dataset_identity="", identity={})
    run.card_path.write_text(card.model_dump_json())
    recipe, heard, synced = tiny_recipe(Path("/dataset")).training(), Supervisor(), []
    work = work_folder(run.checkpoints)
    job = make_job(recipe, run.path, work=work)
    context = RankContext(job, placement, heard)

    def noting(descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps = [line.step for line in read_metrics(path)] if path == run.metrics else []
        synced.append((path.name, steps))
        fsync(descriptor)

    engine = make_engine(placement, Shape(1))
    fragments.create_moments(engine, optimizer_step=64)
    with mock.patch.dict(os.environ, WANDB_MODE="disabled"):
        recorder = Recorder(
            run, recipe, resume_step=0, session_started=0.0, supervision=heard, wandb_facts=dict
        )
    saver = Saver(context, TrainingState(FAR, engine, None), recorder.sync)
    fsync = os.fsync
    with mock.patch("os.fsync", noting):
        recorder.append(train_line(70))
        saver.save(final=final)
        saver.finish()
    saver.close()
    recorder.close()
    engine.destroy()
    return heard.written[0][1].to_json(), synced


@pytest.mark.parametrize("final", [False, True])
def test_the_record_is_synced_before_the_state_file(rank_pools, tmp_path, final):
    ((_, synced),) = rank_pools(1).run(save, tmp_path, final)
    assert synced == [("metrics.jsonl", [70]), ("state-00000-of-00001.safetensors", [])]


def test_the_header_contains_all_fields_of_the_progress(rank_pools, tmp_path):
    ((text, _),) = rank_pools(1).run(save, tmp_path, True)
    header = CheckpointHeader.model_validate_json(text)
    resumed = Progress.of_checkpoint(header, Cursor.from_json(header.cursor))
    resumed.scores = header.scores
    assert resumed == FAR
    assert header.optimizer_step == 64  # fewer than steps, because some were skipped
    assert header.dataset_identity == IDENTITY
