"""Drivers that save checkpoints of a run in an object store, with faults at each request."""

import multiprocessing.process
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.storage.object_store import ObjectStore
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.checkpoints.state_upload import StateUploader
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.remote.files import KnownFiles, objects_of
from run_store.remote.head import HEAD, HeadObject
from run_store.remote.mirror import RunMirror
from run_store.remote.pull import RunPuller
from support.records.checkpoints import (
    KEEP_ONE,
    Listener,
    check_stepped,
    make_header,
    stepped_share,
)
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter

RANKS = 2
SECONDS = 120.0


class Driver:
    """Driver without ranks; its local folder is new unless a folder is given."""

    def __init__(self, run: RunFolder, lease: Lease, mirror: RunMirror) -> None:
        self.run = run
        self.mirror = mirror
        self._lease = lease
        self.committer = CheckpointCommitter(lease, run.checkpoints, KEEP_ONE, RANKS, print, mirror)

    def save(self, step: int) -> None:
        """Record a step, save it like ranks and supervisor, and wait until it is published."""
        with self.run.metrics.open("a") as record:
            record.write(f"{step}\n")
        listener = Listener(self.committer)
        for rank in range(RANKS):
            share = stepped_share(step, rank)
            writer = CheckpointWriter(
                lambda: share,  # noqa: B023 (called at once)
                work=self.committer.work,
                attempt=self.committer.attempt,
                placement=Placement(rank=rank, world_size=RANKS),
                supervision=listener,  # type: ignore[arg-type]
                uploader=StateUploader(self.mirror.states_url, listener),  # type: ignore[arg-type]
            )
            with closing(writer):
                writer.save(make_header(step), final=True)
        deadline = time.monotonic() + SECONDS
        while self.committer.newest_step != step:
            assert time.monotonic() < deadline, f"step {step} is not published"
            self._lease.check()
            self.committer.take_published()
            time.sleep(0.01)


@contextmanager
def driving(url: str, folder: Path, announce: Callable[[str], None] = print) -> Iterator[Driver]:
    """Yield a driver that owns the run during the context."""
    run = RunFolder(folder, url)
    folder.mkdir(parents=True, exist_ok=True)
    with Lease(folder) as lease, RunMirror(url, run, announce) as mirror:
        lease.require(mirror.check)
        yield Driver(run, lease, mirror)


def save_in_process(
    url: str, folder: Path, environment: Mapping[str, str], steps: tuple[int, ...]
) -> None:
    """Job of a process that a test kills."""
    os.environ.update(environment)
    with driving(url, folder) as driver:
        for step in steps:
            driver.save(step)


def check_run(url: str, folder: Path, when: str) -> int:
    """Check that readers find only complete checkpoints and a record; return the newest step."""
    shutil.rmtree(folder, ignore_errors=True)
    RunPuller(ObjectStore(url), KnownFiles(folder)).pull()
    found = check_stepped(folder / "checkpoints", when)
    recorded = [int(line) for line in (folder / "metrics.jsonl").read_text().split()]
    assert max(recorded) >= found[-1].step, when
    return found[-1].step


def check_no_orphans(url: str, when: str) -> None:
    """Check that the head refers to every object, and that each object in it exists."""
    store = ObjectStore(url)
    head = HeadObject(store).read()
    assert head is not None
    named = objects_of(head.files)
    there = {info.name for info in store.list()}
    prefixes = tuple(f"{prefix}/" for prefix in head.checkpoints.values())
    orphans = {n for n in there if n not in named and n != HEAD and not n.startswith(prefixes)}
    assert orphans == set(), when
    assert named <= there, when


def new_process(context: Any, target: Callable[..., None], *arguments: Any) -> Any:
    process: multiprocessing.process.BaseProcess = context.Process(target=target, args=arguments)
    process.start()
    return process
