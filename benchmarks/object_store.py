"""Cost of a run in an object store: stall of a checkpoint, restore of a checkpoint, requests.

Stall: one rank with SIZE GB of state saves with an interval, in turns to a folder, and to a folder
and then to the object store. The figure is the time for which training waits; the goal is that of
the folder plus 10 %.

Restore: a checkpoint of two ranks is read as a restart reads it, in turns from the disk and from
the object store, whose chunks are compared with their hashes. The disk's pages are in memory. All
bytes are read by one process, whereas the ranks of a run read at the same time.

Requests: those of a driver that idles for some time, and those of one checkpoint with two ranks.

The server is the one of AWS_ENDPOINT_URL, with credentials in the environment; the bucket of --url
must exist. Written objects are removed. Without --url, a moto server on this machine is used,
which keeps objects in memory and takes part of the CPU time.

    .venv/bin/python benchmarks/object_store.py [--url URL] [--gigabytes N] [--rounds N]
        [--idle SECONDS]
"""

import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from unittest import mock

import torch

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from data_pipeline.storage.object_store import ObjectStore
from foundation.location import Location
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.committer import CheckpointCommitter
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.fragment import MASTER, Fragment
from run_store.checkpoints.reader import CheckpointReader
from run_store.checkpoints.state_upload import StateUploader
from run_store.config import CheckpointsConfig
from run_store.folder import RunFolder
from run_store.lease import Lease
from run_store.remote.mirror import RunMirror
from run_store.run_copies import register_copy
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.records.checkpoints import Listener, make_header
from support.storage.s3_server import S3Server

METHODS = ("get", "get_range", "put", "put_new", "put_over", "list", "delete")
PARAMETERS = 48
RANKS = 2


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the calls of object stores, each of which is one request unless it is retried."""
    calls: Counter[str] = Counter()

    def counting(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            calls[name] += 1
            return original(*arguments, **options)

        return call

    counters = {name: counting(name, getattr(ObjectStore, name)) for name in METHODS}
    with mock.patch.multiple(ObjectStore, **counters):
        yield calls


@contextmanager
def moto() -> Iterator[str]:
    """Serve an object store on this machine; return the location in a new bucket."""
    with S3Server.moto() as server:
        os.environ |= server.environment
        yield server.bucket("benchmark") + "/runs"


def share(gigabytes: float, rank: int, ranks: int) -> list[Fragment]:
    """Return a rank's share of the state, which contains a part of each parameter."""
    numel = int(gigabytes * 1e9 / 4 / PARAMETERS / ranks)
    return [
        Fragment(MASTER, f"parameter.{n}", rank * numel, torch.randn(numel))
        for n in range(PARAMETERS)
    ]


def header_of(step: int, fragments: list[Fragment], ranks: int) -> CheckpointHeader:
    shapes = {f.parameter: [ranks * f.tensor.numel()] for f in fragments}
    return make_header(step, parameters=shapes)


def compare_stalls(url: str, folder: Path, gigabytes: float, rounds: int) -> None:
    """Print the stalls of a save to a folder, and of a save that is also uploaded."""
    fragments = share(gigabytes, 0, 1)
    found: dict[str, list[float]] = {}
    writers: dict[str, CheckpointWriter] = {}
    heard = Listener()
    for name in ("folder", "object store"):
        work = folder / name / ".work-1-1"
        work.mkdir(parents=True)
        writers[name] = CheckpointWriter(
            lambda: fragments,
            work=work,
            attempt="a",
            placement=Placement(),
            supervision=heard,  # type: ignore[arg-type]
            uploader=StateUploader(f"{url}/stalls", heard) if "store" in name else None,  # type: ignore[arg-type]
        )
        found[name] = []
    for step in range(rounds + 1):
        for name, writer in writers.items():
            stall = writer.save(header_of(step, fragments, 1), final=False)
            if step:  # the first round is a warm-up
                found[name].append(stall)
            writer.finish()
            assert not heard.failed, heard.failed
    for writer in writers.values():
        writer.close()
    for name, stalls in found.items():
        median = statistics.median(stalls)
        print(f"stall, {name}: {median:.3f} s ({min(stalls):.3f} to {max(stalls):.3f})")
    ratios = [b / a for a, b in zip(found["folder"], found["object store"], strict=True)]
    print(f"object store against folder: {statistics.median(ratios) - 1:+.1%}, {rounds} pairs")
    store = ObjectStore(url)
    store.delete([info.name for info in store.list("stalls")])


def run_driver(url: str, folder: Path, gigabytes: float, idle: float) -> Path:
    """Print a driver's requests; return the folder of its checkpoint."""
    run = RunFolder(folder / "driver", url)
    run.path.mkdir(parents=True)
    config = CheckpointsConfig(keep_last=1, keep_best=0)
    with counted() as calls, Lease(run.path) as lease, RunMirror(url, run, print) as mirror:
        committer = CheckpointCommitter(lease, run.checkpoints, config, RANKS, print, mirror)
        heard = Listener(committer)
        print(f"requests of a start: {dict(calls)}")
        calls.clear()
        deadline = time.monotonic() + idle
        while time.monotonic() < deadline:
            with run.metrics.open("a") as record:  # like a run that records steps
                record.write("a step\n")
            time.sleep(1.0)
        hourly = {name: round(count * 3600 / idle) for name, count in calls.items()}
        print(f"requests of an hour without checkpoints: {hourly}")
        calls.clear()
        for step in (1, 2):
            for rank in range(RANKS):
                fragments = share(gigabytes, rank, RANKS)
                writer = CheckpointWriter(
                    lambda: fragments,  # noqa: B023 (called at once)
                    work=committer.work,
                    attempt=committer.attempt,
                    placement=Placement(rank=rank, world_size=RANKS),
                    supervision=heard,  # type: ignore[arg-type]
                    uploader=StateUploader(mirror.states_url, heard),  # type: ignore[arg-type]
                )
                with closing(writer):
                    writer.save(header_of(step, fragments, RANKS), final=True)
            while committer.newest_step != step:
                assert not heard.failed, heard.failed
                committer.take_published()
                time.sleep(0.05)
            print(f"requests until checkpoint {step} of {gigabytes:g} GB: {dict(calls)}")
            calls.clear()
        mirror.flush(60.0)
        kept = folder / "kept" / "step-00000002"
        kept.parent.mkdir()
        register_copy(kept.parent, url)
        (run.checkpoints / "step-00000002").rename(kept)
        (run.checkpoints / "step-00000002").symlink_to(kept)
    return kept


def compare_restores(checkpoint: Path, folder: Path, rounds: int) -> None:
    """Print the time to read a whole checkpoint from the disk, and from the object store."""
    local = folder / "local" / checkpoint.name
    local.mkdir(parents=True)
    stored = Checkpoint(checkpoint)
    assert stored.objects
    (local / "checkpoint.json").write_bytes((checkpoint / "checkpoint.json").read_bytes())
    for record in stored.header.files:
        stored.objects.download(record, local / record.name)
    size = stored.bytes
    found: dict[str, list[float]] = {"disk": [], "disk with its hash": [], "object store": []}
    for _ in range(rounds):
        for name, times in found.items():
            begun = time.monotonic()
            source = Checkpoint(checkpoint if name == "object store" else local)
            if name == "disk with its hash":
                source.verify()
            reader = CheckpointReader(source)
            for parameter in source.header.parameters:
                reader.whole(MASTER, parameter)
            times.append(time.monotonic() - begun)
    for name, times in found.items():
        median = statistics.median(times)
        print(
            f"restore, {name}: {median:.2f} s ({min(times):.2f} to {max(times):.2f}), "
            f"{size / 1e9 / median:.2f} GB/s"
        )


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--url", type=Location)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=float, default=60.0)
    arguments = parse_arguments(parser, smoke="--gigabytes 0.001 --rounds 1 --idle 1")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        url = (arguments.url or stack.enter_context(moto())).rstrip("/")
        folder = Path(temporary)
        compare_stalls(url, folder, arguments.gigabytes / RANKS, arguments.rounds)
        checkpoint = run_driver(f"{url}/run", folder, arguments.gigabytes, arguments.idle)
        compare_restores(checkpoint, folder, arguments.rounds)
        store = ObjectStore(url)
        store.delete([info.name for info in store.list()])


if __name__ == "__main__":
    main()
