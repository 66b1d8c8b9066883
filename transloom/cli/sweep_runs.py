"""Work of `transloom sweep`: train the runs of a sweep by `transloom train`, at most K at a time.

    points ──finished before?──▶ skipped
       │  ──trained elsewhere?──▶ wait for it, then check again
       └──▶ a process of `transloom train`, at most K at a time ──▶ finished, stopped or failed

A sweep stores nothing but its runs, so the same command can continue from the state of the runs.
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
from cluster.supervision.command_signals import SIGNALS, ignore_signals
from cluster.supervision.interval import Interval
from foundation.wording import counted
from run_store.record.run_status import run_status_of
from run_store.record.run_status_model import RunStatus
from run_store.remote.files import SWEEP_OUTPUT
from transloom.cli.sweep_points import SweepPoint

POLL_SECONDS = 0.2
STATUS_SECONDS = 1.0
OUTPUT = SWEEP_OUTPUT  # file in the run's folder with all output of the run's process
REASON_BYTES = 4096
# -P keeps the current directory off Python's path, because it may contain packages of the same
# names.
TRANSLOOM = (sys.executable, "-P", "-c", "from transloom.cli.app import main; main()")


class SweepChild(Protocol):
    """Training process of a run."""

    def poll(self) -> int | None:
        """Return the exit code, or None while the run trains."""

    def ask_to_stop(self) -> None:
        """Ask for a checkpoint and exit code 75; on a second call, ask for an immediate exit."""


class TrainProcess:
    """Process of `transloom train` that trains a run of a sweep."""

    def __init__(self, recipe: Path, point: SweepPoint, options: Sequence[str]) -> None:
        """Start the process in a separate session, with its output in the run's folder.

        Args:
            options: options of `transloom train`, in addition to the overrides of the point.
        """
        point.run.mkdir(parents=True, exist_ok=True)
        command = [*TRANSLOOM, "train", str(recipe), *point.overrides, *options]
        with (point.run / OUTPUT).open("ab") as output:
            # In a separate session, the process receives a terminal's Ctrl-C only through this
            # process.
            self._process = subprocess.Popen(
                [*command, "--run", point.location],
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
    """Run that another process trains, such as a process that a killed sweep left running."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._given_up = False

    def poll(self) -> int | None:
        """Return None while the run trains, and afterwards 75, because its exit code is unknown."""
        trains = run_status_of(self._run).state == "training"
        return EXIT_PREEMPTED if self._given_up or not trains else None

    def ask_to_stop(self) -> None:
        """Stop waiting for the run; this sweep does not stop a process that it has not started."""
        self._given_up = True


class SweepSignals:
    """Counter of stop signals; a `with` statement makes it their handler."""

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> "SweepSignals":
        for number in SIGNALS:
            signal.signal(number, self._count)
        return self

    def __exit__(self, *_: object) -> None:
        ignore_signals()  # the sweep has ended; a signal must not affect its outcome

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1


@dataclass
class SweepRun:
    """Run of a sweep with its current state.

    Attributes:
        exit_code: exit code of the run's process, or None until the process ends; 0 if the run had
            finished before the sweep.
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
        """Reason of a failure, or None if the run has not failed."""
        if self.state != "failed":
            return None
        if self.run_status.state == "failed" and self.run_status.reason:
            return self.run_status.reason
        return _last_error(self.point.run, self.exit_code)

    def to_json(self) -> dict[str, Any]:
        kept = {"step", "max_steps", "scores", "scores_step", "best", "checkpoint"}
        return {
            "run": self.point.location,
            "changed": self.point.changed,
            "state": self.state,
            "exit_code": self.exit_code,
            "reason": self.reason,
            **self.run_status.model_dump(mode="json", include=kept),
        }


class Sweep:
    """Training of a sweep's runs, with a limited number of them at a time."""

    def __init__(
        self,
        points: Sequence[SweepPoint],
        at_once: int,
        start: Callable[[SweepPoint], SweepChild],
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Read the state of each run, without starting any training.

        Args:
            start: function that starts the training of a run that has not finished.
            notice: called with a line for each run that starts or ends.
        """
        self.runs = [SweepRun(point, _read_status(point)) for point in points]
        self._at_once = at_once
        self._start = start
        self._notice = notice
        self._waiting = deque(self.runs)
        self._children: dict[int, tuple[SweepRun, SweepChild]] = {}
        self._stops_forwarded = 0
        self._looks = Interval(STATUS_SECONDS)

    def train(self, signals: SweepSignals, show: Callable[[], None] = lambda: None) -> int:
        """Train until all runs have ended, or until they have stopped after a signal.

        Args:
            show: called periodically to update a display.

        Returns:
            The sweep's exit code: 75 if a signal stopped it and the same command can continue it,
            1 if a run has failed, else 0.
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
        finally:  # after an error, such as an unwritable folder, no process may keep running
            for _, child in self._children.values():
                child.ask_to_stop()
        return self._exit_code(asked=bool(signals.asked))

    def _forward_stop(self, asked: int) -> None:
        while self._stops_forwarded < asked:
            self._stops_forwarded += 1
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
                # The external process has ended, or the sweep has been asked to stop.
                self._waiting.appendleft(run)
                continue
            run.exit_code = code
            said = f": {run.reason}" if run.reason else ""
            self._notice(f"{run.name}: {run.state} at step {run.run_status.step:,}{said}")

    def _begin(self, run: SweepRun) -> None:
        run.run_status = _read_status(run.point)
        if run.run_status.state == "finished" and run.run_status.max_steps == run.point.max_steps:
            run.exit_code = 0
            self._notice(f"{run.name}: already finished, at step {run.run_status.step:,}")
            return
        run.trains = True
        number = self.runs.index(run)
        if run.run_status.state == "training":
            self._notice(f"{run.name}: another process trains this run; waiting for that process")
            self._children[number] = run, ExternalRun(run.point.run)
            return
        going_on = (
            f" from step {run.run_status.checkpoint_step:,}" if run.run_status.checkpoint else ""
        )
        self._notice(f"{run.name}: run {number + 1} of {len(self.runs)} starts{going_on}")
        self._children[number] = run, self._start(run.point)

    def _exit_code(self, *, asked: bool) -> int:
        codes = {run.exit_code for run in self.runs}
        if asked and codes != {0}:
            return EXIT_PREEMPTED
        if codes - {0, EXIT_PREEMPTED, None}:
            return EXIT_FAILED
        return EXIT_PREEMPTED if EXIT_PREEMPTED in codes else 0

    def outcome(self) -> str:
        """Return the number of runs in each state, in words."""
        states = [run.state for run in self.runs]
        parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        return f"{counted(len(states), 'run')}: {', '.join(parts)}"


def _read_status(point: SweepPoint) -> RunStatus:
    return run_status_of(point.run)


def _last_error(run: Path, code: int | None) -> str:
    """Return the last error that a run's process printed, or the path of its output file."""
    with suppress(OSError):
        with (run / OUTPUT).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - REASON_BYTES))
            said = file.read().decode(errors="replace")
        if "error: " in said:
            return " ".join(said.rpartition("error: ")[2].split())
    return f"the run's process exited with code {code}; see its output in {run / OUTPUT}"
