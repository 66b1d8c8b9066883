"""`transloom sweep`: runs of a recipe with several values, some at a time, each by `train`.

    points ──finished before?──▶ skipped
       │  ──trained elsewhere?──▶ waited for, then looked at again
       └──▶ a process of `transloom train`, at most K at once ──▶ finished, stopped or failed

Nothing of a sweep is kept but its runs: the same command goes on where they stand.
"""

import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from cluster.errors import EXIT_FAILED, EXIT_PREEMPTED
from cluster.supervision.command_signals import SIGNALS
from cluster.supervision.interval import Interval
from foundation.wording import counted
from trainer.record.run_status import RECORD_BYTES_IN_LIST, RunStatus, run_status_of
from transloom.cli.sweep_points import SweepPoint

POLL_SECONDS = 0.2
STATUS_SECONDS = 1.0
OUTPUT = "output.txt"  # in the run's folder: all that its process prints
REASON_BYTES = 4096
# Without this process's folder on the path, where packages of the same names may lie.
TRANSLOOM = (sys.executable, "-P", "-c", "from transloom.cli.app import main; main()")


class SweepChild(Protocol):
    """A run that is being trained."""

    def poll(self) -> int | None:
        """The exit code; None as long as it trains."""

    def ask_to_stop(self) -> None:
        """Let it leave a checkpoint and 75; when asked again, let it leave at once."""


class TrainProcess:
    """A process of `transloom train`."""

    def __init__(self, recipe: Path, point: SweepPoint, options: Sequence[str]) -> None:
        """
        Args:
            options: of `transloom train`, besides those of the point.
        """
        point.run.mkdir(parents=True, exist_ok=True)
        command = [*TRANSLOOM, "train", str(recipe), *point.overrides, *options]
        with (point.run / OUTPUT).open("ab") as output:
            # In a session of its own: a terminal's Ctrl-C comes to it once, from here.
            self._process = subprocess.Popen(
                [*command, "--run", str(point.run)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def ask_to_stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)


class ExternalRun:
    """A run that another process trains, such as one that a killed sweep has left."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._given_up = False

    def poll(self) -> int | None:
        """None as long as it trains; then nobody knows how it left."""
        trains = run_status_of(self._run, RECORD_BYTES_IN_LIST).state == "training"
        return EXIT_PREEMPTED if self._given_up or not trains else None

    def ask_to_stop(self) -> None:
        """Not ours to stop: it is no longer waited for."""
        self._given_up = True


class SweepSignals:
    """Counts requests to stop for as long as the context lasts."""

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> "SweepSignals":
        self._before = {number: signal.signal(number, self._count) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)  # the outcome stands

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1


@dataclass
class SweepRun:
    """A run of the sweep, and what became of it so far.

    Attributes:
        exit_code: of its process; 0 if it was finished before; None until it has ended.
    """

    point: SweepPoint
    run_status: RunStatus
    exit_code: int | None = None
    trains: bool = False

    @property
    def name(self) -> str:
        return self.point.run.name

    @property
    def state(self) -> str:
        if self.trains:
            return "training"
        names = {None: "waiting", 0: "finished", EXIT_PREEMPTED: "stopped"}
        return names.get(self.exit_code, "failed")

    @property
    def reason(self) -> str | None:
        """Why it failed."""
        if self.state != "failed":
            return None
        if self.run_status.state == "failed" and self.run_status.reason:
            return self.run_status.reason
        return _last_error(self.point.run, self.exit_code)

    def to_json(self) -> dict[str, Any]:
        kept = {"step", "max_steps", "scores", "scores_step", "best", "checkpoint"}
        return {
            "run": str(self.point.run),
            "changed": self.point.changed,
            "state": self.state,
            "exit_code": self.exit_code,
            "reason": self.reason,
            **self.run_status.model_dump(mode="json", include=kept),
        }


class Sweep:
    """Trains the runs of a sweep, a few at a time."""

    def __init__(
        self,
        points: Sequence[SweepPoint],
        at_once: int,
        start: Callable[[SweepPoint], SweepChild],
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """
        Args:
            start: begins to train a run that is not finished.
            notice: told of each run that begins or ends.
        """
        self.runs = [SweepRun(point, _read_status(point)) for point in points]
        self._at_once = at_once
        self._start = start
        self._notice = notice
        self._waiting = deque(self.runs)
        self._children: dict[int, tuple[SweepRun, SweepChild]] = {}
        self._told_to_stop = 0
        self._looks = Interval(STATUS_SECONDS)

    def train(self, signals: SweepSignals, show: Callable[[], None] = lambda: None) -> int:
        """Train until all have ended, or have left after a request to stop.

        Args:
            show: called again and again, for a display.

        Returns:
            The sweep's exit code: 75 if the same command has something to go on with because it
            was asked to stop, 1 if a run has failed, else 0.
        """
        try:
            while self._children or (self._waiting and not signals.asked):
                self._forward_stop(signals.asked)
                self._collect_finished()
                while self._waiting and len(self._children) < self._at_once and not signals.asked:
                    self._begin(self._waiting.popleft())
                show()
                if self._children:
                    time.sleep(POLL_SECONDS)
        finally:  # an error here, such as a folder that cannot be written, leaves nobody behind
            for _, child in self._children.values():
                child.ask_to_stop()
        return self._exit_code(asked=bool(signals.asked))

    def _forward_stop(self, asked: int) -> None:
        while self._told_to_stop < asked:
            self._told_to_stop += 1
            for _, child in self._children.values():
                child.ask_to_stop()

    def _collect_finished(self) -> None:
        looks = self._looks.has_passed(time.monotonic())
        for key, (run, child) in list(self._children.items()):
            code = child.poll()
            if code is None:
                run.run_status = _read_status(run.point) if looks else run.run_status
                continue
            del self._children[key]
            run.trains, run.run_status = False, _read_status(run.point)
            if isinstance(child, ExternalRun):
                self._waiting.appendleft(run)  # whoever trained it is gone, or we are to leave
                continue
            run.exit_code = code
            said = f": {run.reason}" if run.reason else ""
            self._notice(f"{run.name}: {run.state} at step {run.run_status.step:,}{said}")

    def _begin(self, run: SweepRun) -> None:
        run.run_status = _read_status(run.point)
        if run.run_status.state == "finished" and run.run_status.max_steps == run.point.max_steps:
            run.exit_code = 0
            self._notice(f"{run.name}: finished before, at step {run.run_status.step:,}")
            return
        run.trains = True
        number = self.runs.index(run)
        if run.run_status.state == "training":
            self._notice(f"{run.name}: another process trains it, and is waited for")
            self._children[number] = run, ExternalRun(run.point.run)
            return
        going_on = (
            f" from step {run.run_status.checkpoint_step:,}" if run.run_status.checkpoint else ""
        )
        self._notice(f"{run.name}: run {number + 1} of {len(self.runs)} begins{going_on}")
        self._children[number] = run, self._start(run.point)

    def _exit_code(self, *, asked: bool) -> int:
        codes = {run.exit_code for run in self.runs}
        if asked and codes != {0}:
            return EXIT_PREEMPTED
        if codes - {0, EXIT_PREEMPTED, None}:
            return EXIT_FAILED
        return EXIT_PREEMPTED if EXIT_PREEMPTED in codes else 0

    def outcome(self) -> str:
        """How many runs are in which state, in words."""
        states = [run.state for run in self.runs]
        parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        return f"{counted(len(states), 'run')}: {', '.join(parts)}"


def _read_status(point: SweepPoint) -> RunStatus:
    return run_status_of(point.run, RECORD_BYTES_IN_LIST)


def _last_error(run: Path, code: int | None) -> str:
    """What the process of a run said last, if it was an error."""
    with suppress(OSError):
        with (run / OUTPUT).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - REASON_BYTES))
            said = file.read().decode(errors="replace")
        if "error: " in said:
            return " ".join(said.rpartition("error: ")[2].split())
    return f"its process left {code}; {run / OUTPUT} has what it said"
