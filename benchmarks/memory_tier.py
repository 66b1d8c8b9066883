"""Cost of memory checkpoints: stall, CPU time, copy to another node, and restore.

One process is a rank that owns a whole state of random fp32 tensors; two agents under an embedded
Ray are its node and the next one. For each size of the state, a row has the medians over the
repetitions, beside the bandwidth of a plain copy in the same process and a checkpoint on the disk.

    stall          the time for which `MemoryWriter.save` or `CheckpointWriter.save` stops training
    CPU            CPU seconds of this process for each GB, with the checksum behind the training
    written        until the file and its checksum are complete
    to next node   the copy by the other agent, with its own checksum
    load           reading the whole state into tensors: from the file, or from another node

    .venv/bin/python benchmarks/memory_tier.py [--megabytes N ...] [--repetitions N] [--json]
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ray
import torch

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from cluster.health.watchdog import HeartbeatSender
from cluster.ranks.node_agent import NodeAgent
from cluster.ranks.node_memory import (
    MemoryCheckpoint,
    PendingCopy,
    StoredFile,
    memory_folder_name,
)
from cluster.ray.embedded import EmbeddedRay
from cluster.ray.session import ray_session
from run_store.checkpoints.format import CheckpointHeader
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
from run_store.checkpoints.memory_folder import MemoryFolder
from run_store.checkpoints.reader import CheckpointReader
from run_store.checkpoints.state_file import FileRecord, LocalStateFile, StateFile
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.state.memory_writer import MemoryWriter

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.records.checkpoints import Listener, make_header

KINDS = ("master", "exp_avg", "exp_avg_sq")
TENSORS = 16
RUN = "benchmark"
GOAL_SHARE_OF_COPY = 0.5


class Supervisor(Listener):
    """Supervision that confirms every step as soon as it is written.

    Attributes:
        is_written: set when a file is complete.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_written = threading.Event()
        self.file: MemoryFile | None = None
        self._step = 0

    def memory_written(self, file: MemoryFile, header: CheckpointHeader) -> None:
        self.file, self._step = file, header.step
        self.is_written.set()

    def state_written(self, file: FileRecord, header: CheckpointHeader) -> None:
        self.is_written.set()

    def memory_failed(self, step: int) -> None:
        raise AssertionError(f"step {step} was not written")

    def memory_steps(self) -> MemorySteps:
        return MemorySteps(self._step, self._step)


def make_state(megabytes: int) -> list[Fragment]:
    numel = megabytes * 1_000_000 // 4 // (TENSORS * len(KINDS))
    generator = torch.Generator().manual_seed(1)
    return [
        Fragment(kind, f"layer.{number}", 0, torch.rand(numel, generator=generator))
        for number in range(TENSORS)
        for kind in KINDS
    ]


def header_of(step: int, state: Sequence[Fragment]) -> CheckpointHeader:
    return make_header(step, parameters={part.parameter: [part.tensor.numel()] for part in state})


def median_seconds(action: Callable[[], object], repetitions: int) -> float:
    seconds = []
    for _ in range(repetitions):
        started = time.monotonic()
        action()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


def saves(
    save: Callable[[CheckpointHeader], float],
    supervisor: Supervisor,
    state: Sequence[Fragment],
    repetitions: int,
) -> tuple[float, float, float]:
    """Return the medians of stall, CPU seconds and seconds until the file is complete."""
    found = []
    for step in range(1, repetitions + 2):
        supervisor.is_written.clear()
        time.sleep(0.05)  # wait for the thread of the previous save
        cpu, started = time.process_time(), time.monotonic()
        stall = save(header_of(step, state))
        supervisor.is_written.wait()
        found.append((stall, time.process_time() - cpu, time.monotonic() - started))
    stall, cpu, written = (statistics.median(column) for column in zip(*found[1:], strict=True))
    return stall, cpu, written


def load(files: list[StateFile], state: Sequence[Fragment], target: Sequence[torch.Tensor]) -> None:
    """Read the whole state into existing tensors, as a rank does."""

    class Saved:
        header = header_of(1, state)
        step = 1
        label = "the benchmark's state"

        def open_files(self) -> list[StateFile]:
            return files

        def verify_share(self, rank: int, world_size: int) -> None: ...

    reader = CheckpointReader(Saved())
    for fragment, tensor in zip(state, target, strict=True):
        reader.read_into(fragment.kind, fragment.parameter, 0, tensor)


def measure(megabytes: int, repetitions: int, agents: Sequence[object]) -> dict[str, float]:
    state = make_state(megabytes)
    gigabytes = sum(fragment.tensor.nbytes for fragment in state) / 1e9
    target = [torch.zeros_like(fragment.tensor) for fragment in state]

    def copy_all() -> None:
        for fragment, tensor in zip(state, target, strict=True):
            tensor.copy_(fragment.tensor)

    copy_seconds = median_seconds(copy_all, repetitions)
    row = {"gigabytes": gigabytes, "copy GB/s": gigabytes / copy_seconds}

    supervisor, folder = Supervisor(), MemoryFolder(memory_folder_name(RUN))
    attempt = folder.path / f"attempt-{megabytes}"
    attempt.mkdir(mode=0o700)
    writer = MemoryWriter(
        lambda: iter(state), folder=attempt, placement=Placement(), supervision=supervisor
    )
    # wait, because the slots are allocated in the background
    while len(list(attempt.iterdir())) < 2:
        time.sleep(0.05)
    time.sleep(gigabytes)
    row["stall"], cpu, row["written"] = saves(writer.save, supervisor, state, repetitions)
    row["CPU s/GB"] = cpu / gigabytes
    file = supervisor.file
    assert file is not None
    stored = StoredFile(file, ray.get_runtime_context().get_node_id(), agents[0])

    def copy_to_next_node() -> None:
        pending = PendingCopy(file, agents[0], agents[1], "next")
        while pending.poll() is None:
            time.sleep(0.002)

    row["to next node"] = median_seconds(copy_to_next_node, repetitions)
    seconds = median_seconds(lambda: load([stored.open()], state, target), repetitions)
    row["load GB/s"] = gigabytes / seconds
    remote = MemoryCheckpoint(header_of(1, state), (StoredFile(file, "other", agents[0]),))
    seconds = median_seconds(lambda: load(remote.open_files(), state, target), repetitions)
    row["load from node GB/s"] = gigabytes / seconds
    writer.close()
    for path in attempt.iterdir():
        path.unlink()
    folder.close()

    with tempfile.TemporaryDirectory() as work:
        disk = CheckpointWriter(
            lambda: iter(state),
            work=Path(work),
            attempt=RUN,
            placement=Placement(),
            supervision=supervisor,
        )
        row["disk stall"], _, row["disk written"] = saves(
            lambda header: disk.save(header, final=False), supervisor, state, 2
        )
        disk.close()
        path = next(Path(work).glob("*/state-*"))
        seconds = median_seconds(lambda: load([LocalStateFile(path)], state, target), 2)
        row["disk load GB/s"] = gigabytes / seconds
    return row


def table(rows: Sequence[dict[str, float]]) -> str:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(f'{row[name]:.3g}' for name in names)} |" for row in rows]
    share = rows[-1]["load GB/s"] / rows[-1]["copy GB/s"]
    reached = "reached" if share >= GOAL_SHARE_OF_COPY else "MISSED"
    lines += ["", f"{reached}: the largest state loads at {share:.0%} of the copy's bandwidth"]
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 200, 2000])
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parse_arguments(parser, smoke="--megabytes 1 --repetitions 1")
    torch.set_num_threads(1)
    with ray_session(None, EmbeddedRay(cpus=2, niceness=0), lambda *_: None):
        agents = [NodeAgent.remote() for _ in range(2)]  # type: ignore[attr-defined]
        with HeartbeatSender(lambda: agents):
            rows = [measure(size, arguments.repetitions, agents) for size in arguments.megabytes]
            ray.get([agent.close_memory.remote() for agent in agents])
    print(json.dumps(rows) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
