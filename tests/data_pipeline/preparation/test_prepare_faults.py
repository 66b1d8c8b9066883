"""`prepare`, if killed, out of disk space or given damaged text, leaves a whole dataset or none."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import prepare_job
from support.cluster.processes import children, is_alive, wait_until
from support.data_settings import settings_of
from support.machine_parts import missing

from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.verification import problems_of
from data_pipeline.errors import CorpusError, DatasetError
from data_pipeline.preparation import ingest
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import PrepareProgress
from data_pipeline.preparation.publish import clear_leftovers
from data_pipeline.storage.store import open_store

MakeData = Callable[..., PairDataConfig]


def silent(progress: PrepareProgress) -> None:
    """Ignore the progress."""


def identity_of(dataset: Path) -> str:
    """Return the identity of a dataset, after a check that the dataset is whole."""
    manifest = Manifest.load(open_store(dataset))
    assert (
        problems_of(str(dataset), manifest, rules_by_corpus(manifest), 1, lambda done, total: None)
        == []
    )
    return manifest.identity


@pytest.fixture(autouse=True)
def others() -> Iterator[list[psutil.Process]]:
    """Yield the children that this process already has; a test must not leave others."""
    before = children()
    yield before
    assert set(children()) <= set(before)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read many chunks of few pairs."""
    monkeypatch.setattr(ingest, "EXAMPLES_PER_CHUNK", 40)


@pytest.mark.long
@pytest.mark.parametrize("stage", ["read", "train tokenizer", "write"])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.usefixtures("small_parts")
def test_an_interruption_leaves_no_dataset(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    tmp_path: Path,
    stage: str,
    processes: int,
) -> None:
    def interrupt(progress: PrepareProgress) -> None:
        if progress.stage == stage and progress.done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(
            settings_of(data_config(tmp_path / "d"), tokenizer_config),
            interrupt,
            processes=processes,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["read", "write"])
@pytest.mark.usefixtures("small_parts")
def test_a_killed_worker_is_reported_and_leaves_nothing(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    tmp_path: Path,
    others: list[psutil.Process],
    stage: str,
) -> None:
    def kill_one(progress: PrepareProgress) -> None:
        pool = [child for child in children() if child not in others]
        if progress.stage == stage and pool:
            pool[0].kill()

    data = data_config(tmp_path / "d", pairs_per_block=1, blocks_per_shard=2)
    with pytest.raises(DatasetError, match=r"was killed \(exit code -9\).*fewer --processes"):
        prepare(settings_of(data, tokenizer_config), kill_one, processes=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.usefixtures("small_parts")
def test_an_invalid_line_deep_in_a_file_is_reported(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    corpus_folder: Path,
    tmp_path: Path,
    processes: int,
) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "corpora"))
    lines = (folder / "train.tgt").read_bytes().split(b"\n")
    lines[432] = b"caf\xe9"
    (folder / "train.tgt").write_bytes(b"\n".join(lines))
    data = data_config(tmp_path / "d", mirror=str(folder))
    with pytest.raises(CorpusError, match=r"train\.tgt, line 433: the byte 0xe9, number 4"):
        prepare(settings_of(data, tokenizer_config), silent, processes=processes)
    assert list(tmp_path.iterdir()) == [folder]


def test_the_old_dataset_is_kept_when_its_replacement_fails(
    dataset: Path, data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "d"))
    broken = {"source": "/no/such/file", "target": "/no/such/file"}
    with pytest.raises(CorpusError):
        prepare(
            settings_of(data_config(copy, train=[broken]), tokenizer_config), silent, overwrite=True
        )
    assert identity_of(copy) == identity_of(dataset)
    assert list(tmp_path.iterdir()) == [copy]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        missing("mounting a small file system is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.matrix
@pytest.mark.needs("small disks")
@pytest.mark.parametrize(("megabytes", "stages"), [(1, {"read"}), (3, {"read", "write"})])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_reported_and_leaves_nothing(
    data_config: MakeData,
    tokenizer_config: TokenizerConfig,
    tmp_path: Path,
    megabytes: int,
    stages: set[str],
    processes: int,
) -> None:
    """Partitions take 2 MB, a page each; shards with one pair per block take 4 MB."""
    reached: set[str] = set()
    data = data_config(tmp_path / "disk" / "d", pairs_per_block=1, blocks_per_shard=1)
    message = r"disk/d cannot be prepared .*No space left.*space for three times the text"
    with small_disk(tmp_path / "disk", megabytes):
        with pytest.raises(DatasetError, match=message):
            prepare(
                settings_of(data, tokenizer_config),
                lambda progress: reached.add(progress.stage),
                processes=processes,
            )
        assert list((tmp_path / "disk").iterdir()) == []
    assert stages <= reached
    assert ("write" in reached) == ("write" in stages)


def test_a_folder_that_cannot_be_written_is_reported(
    data_config: MakeData, tokenizer_config: TokenizerConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match=r"cannot be prepared .*Not a directory"):
        prepare(settings_of(data_config(tmp_path / "file" / "d"), tokenizer_config), silent)


@pytest.fixture(scope="module")
def job(
    corpus_folder: Path, data_config: MakeData, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return a preparation of 4,000 pairs, which reports reading 8 times and writing 4 times."""
    mirror = Path(shutil.copytree(corpus_folder, tmp_path_factory.mktemp("more") / "corpora"))
    for side in (".src", ".tgt"):
        path = mirror / f"train{side}"
        path.write_text(path.read_text() * 8)
    data = data_config(Path("d"), mirror=str(mirror))
    return {
        "data": data.model_dump(mode="json", exclude_none=True),
        "tokenizer": {"vocabulary_size": 200},
        "processes": 2,
        "overwrite": True,
        "pairs_per_chunk": 500,
    }


def kill_at(
    job: dict[str, Any],
    dataset: Path,
    moment: int,
    *,
    everything: bool = True,
    delay_seconds: float = 0,
) -> None:
    """Start a preparation, and kill its main process or all processes after `moment` reports."""
    data = job["data"] | {"dataset": str(dataset)}
    process = prepare_job.start(dataset.parent.parent, **(job | {"data": data}))
    assert process.stdout is not None
    with process.stdout as reports:
        for _ in range(moment):
            assert reports.readline()
        pool = [child.pid for child in children(process.pid)]
        time.sleep(delay_seconds)
        if everything:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pool))


@pytest.mark.long
@pytest.mark.parametrize(("replacing", "everything"), [(False, True), (True, False)])
def test_a_kill_at_any_time_leaves_the_old_dataset_or_none(
    job: dict[str, Any], dataset: Path, tmp_path: Path, replacing: bool, everything: bool
) -> None:
    target = tmp_path / "datasets" / "d"
    target.parent.mkdir()
    if replacing:
        shutil.copytree(dataset, target)
    for moment in random.Random(replacing).sample(range(1, 12), 2):
        kill_at(job, target, moment, everything=everything)
        assert target.exists() == replacing
        if replacing:
            assert identity_of(target) == identity_of(dataset)

    data = PairDataConfig.model_validate(job["data"] | {"dataset": str(target)})
    again = TokenizerConfig.model_validate(job["tokenizer"])
    manifest = prepare(settings_of(data, again), silent, overwrite=True, processes=1)
    assert list(target.parent.iterdir()) == [target]
    assert identity_of(target) == manifest.identity != identity_of(dataset)


@pytest.mark.long
@pytest.mark.parametrize("delay_seconds", [0.0, 0.03])
def test_a_kill_during_publishing_leaves_either_the_old_or_the_new_dataset(
    job: dict[str, Any], dataset: Path, tmp_path: Path, delay_seconds: float
) -> None:
    target = tmp_path / "datasets" / "d"
    shutil.copytree(dataset, target)
    kill_at(job | {"processes": 1}, target, 15, delay_seconds=delay_seconds)
    clear_leftovers(target)
    assert list(target.parent.iterdir()) == [target]
    identity_of(target)
