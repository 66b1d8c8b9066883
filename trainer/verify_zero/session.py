"""Processes that compute the reference and the cells of the grid.

Each cell has new processes, so that no state of DeepSpeed's modules passes from one cell to the
next. On CPUs they are forked from a process that has imported torch and DeepSpeed, which takes
seconds.
"""

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foundation.environment import environment
from trainer.errors import EngineError
from trainer.process.placement import Placement
from trainer.verify_zero.zero_grid import Cell, Digests, Work

if TYPE_CHECKING:
    from trainer.verify_zero.zero_cell import Prepare, Reference

PRELOADED = "trainer.verify_zero.zero_cell"
GRACE_SECONDS = 5.0  # time to collect other ranks' messages after one has failed


@dataclass(frozen=True)
class CellVerdict:
    """Result of a cell.

    Attributes:
        outcome: `equal`; `different`; `error` if a rank failed; `hangs` if there was no result
            within the time limit.
        step, parameter: the first step and parameter that differ, or None.
        what: description of the parameter's weights that differ, or the error message.
    """

    cell: Cell
    outcome: Literal["equal", "different", "error", "hangs"]
    seconds: float
    step: int | None = None
    parameter: str | None = None
    what: str = ""


class Session:
    """Session that computes the reference once, and then one cell after another."""

    def __init__(self, work: Work, device: Literal["cpu", "cuda"], timeout_seconds: float) -> None:
        """Store the work; `reference` must be called before `verdict`.

        Args:
            device: the type of the ranks' devices.
            timeout_seconds: the time after which the ranks of a cell are killed.
        """
        self._work = work
        self._device: Literal["cpu", "cuda"] = device
        self._timeout = timeout_seconds
        os.environ["DS_ACCELERATOR"] = device  # DeepSpeed reads it when it is imported
        self._context: Any = multiprocessing.get_context(
            "spawn" if device == "cuda" else "forkserver"
        )
        if device == "cpu":
            self._context.set_forkserver_preload([PRELOADED])

    def reference(self) -> "Reference":
        """Compute the reference.

        Raises:
            EngineError: the computation failed.
        """
        (answer,) = self._run(1, _reference, self._work)
        if answer.error:
            raise EngineError(f"The steps in plain torch failed. {answer.error}")
        found: Reference = answer.result
        return found

    def verdict(
        self, cell: Cell, reference: "Reference", prepare: "Prepare | None" = None
    ) -> CellVerdict:
        """Train the steps in a cell, and compare its weights with the reference."""
        started = time.monotonic()
        answers = self._run(
            cell.ranks,
            _cell,
            (self._work, cell, reference.peaks, reference.elements, prepare),
        )
        seconds = time.monotonic() - started
        for answer in answers:
            if answer.error:
                return CellVerdict(cell, answer.outcome, seconds, what=answer.error)
        for answer in answers:
            if difference := _first_difference(reference.digests, answer.result):
                return CellVerdict(cell, "different", seconds, *difference)
        return CellVerdict(cell, "equal", seconds)

    def _run(self, ranks: int, job: Callable[..., Any], argument: Any) -> list["_Answer"]:
        with tempfile.TemporaryDirectory(prefix="transloom-zero-") as folder:
            processes, pipes = [], []
            for rank in range(ranks):
                ours, theirs = self._context.Pipe()
                placement = self._placement(rank, ranks, Path(folder))
                process = self._context.Process(
                    target=_serve,
                    args=(theirs, job, argument, placement, self._timeout, Path(folder)),
                    daemon=True,
                )
                with _visible_device(rank if self._device == "cuda" else None):
                    process.start()
                theirs.close()
                processes.append(process)
                pipes.append(ours)
            try:
                return self._collect(pipes)
            finally:
                for process in processes:
                    process.kill()
                    process.join()

    def _placement(self, rank: int, ranks: int, folder: Path) -> Placement:
        return Placement(
            rank=rank,
            world_size=ranks,
            local_rank=rank,
            local_world_size=ranks,
            device=self._device,
            rendezvous=f"file://{folder / 'rendezvous'}" if ranks > 1 else None,
        )

    def _collect(self, pipes: list[Connection]) -> list["_Answer"]:
        """Return the answers of all ranks, or the answers so far if a rank fails or hangs."""
        answers: list[_Answer] = []
        pending = list(pipes)
        deadline = time.monotonic() + self._timeout
        while pending and time.monotonic() < deadline:
            for pipe in wait(pending, max(0.0, deadline - time.monotonic())):
                assert isinstance(pipe, Connection)
                pending.remove(pipe)
                try:
                    answers.append(pipe.recv())
                except EOFError:
                    answers.append(_Answer(error="A rank's process has ended without a message"))
                if answers[-1].error:
                    deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if pending and not any(answer.error for answer in answers):
            answers.append(_Answer(error=f"no result after {self._timeout:.0f} s", outcome="hangs"))
        return answers


@dataclass(frozen=True)
class _Answer:
    result: Any = None
    error: str = ""
    outcome: Literal["error", "hangs"] = "error"


def _first_difference(
    expected: Sequence[Mapping[str, Digests]], found: Sequence[Mapping[str, Digests]]
) -> tuple[int, str, str] | None:
    """Return step, parameter and description of the first difference; None if all are equal."""
    for step, (right, ours) in enumerate(zip(expected, found, strict=True), start=1):
        for name, digests in right.items():
            if ours[name].master != digests.master:
                return step, name, "the optimizer's weights"
            if ours[name].read != digests.read:
                return step, name, "the weights that the forward pass reads"
    return None


def _serve(
    pipe: Connection,
    job: Callable[..., Any],
    argument: Any,
    placement: Placement,
    timeout: float,
    folder: Path,
) -> None:
    """Run a job as one rank, and send its result, or the last line of its error."""
    log = os.open(folder / f"{placement.rank}.txt", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(log, 1)  # DeepSpeed prints settings and warnings
    os.dup2(log, 2)
    from trainer.process.distributed import process_group

    try:
        with process_group(placement, timedelta(seconds=timeout)):
            pipe.send(_Answer(job(argument, placement)))
            os._exit(0)  # DeepSpeed's threads and hooks of stage 3 would report errors
    except BaseException as error:
        last = traceback.format_exception_only(error)[-1].strip()
        pipe.send(_Answer(error=f"rank {placement.rank}: {last.splitlines()[0]}"))
        os._exit(1)


def _reference(work: Work, placement: Placement) -> "Reference":
    from trainer.verify_zero.zero_cell import reference_of

    return reference_of(work, placement)


def _cell(argument: tuple[Any, ...], placement: Placement) -> list[dict[str, Digests]]:
    from trainer.verify_zero.zero_cell import train_cell

    work, cell, peaks, elements, prepare = argument
    return train_cell(work, cell, placement, peaks, elements, prepare)


def _visible_device(index: int | None) -> contextlib.AbstractContextManager[None]:
    """Return a context in which a new process sees only one GPU, as under Ray."""
    if index is None:
        return contextlib.nullcontext()
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    return environment({name: before.split(",")[index] if before else str(index)})
