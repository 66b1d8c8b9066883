"""Run under test: its driver, which is a separate process, its record, and its processes."""

import contextlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import StepLine, TrainLine, ValidationLine
from run_store.scores import Scores
from support.cluster.processes import HANG_SECONDS, command_of, wait_until
from support.command import TRANSLOOM
from support.faults.cluster import FaultCluster
from support.faults.moments import Moment, Reached

LEFTOVER_SECONDS = 120.0


@dataclass(frozen=True)
class Curve:
    """Result of a run, in the order of its record. Equal results are equal to the last bit."""

    steps: list[int]
    losses: list[float]
    digests: list[str]
    validations: list[tuple[int, Scores]]
    weights: list[str]  # sha256 of each file of the newest checkpoint


class Trial:
    """Run of a recipe on a cluster, with its driver and its output."""

    def __init__(
        self, cluster: FaultCluster, recipe: Path, location: Path | str, *options: str
    ) -> None:
        """location: the run's folder or URL."""
        self.cluster = cluster
        self.run = RunFolder.of(location)
        folder = self.run.path
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.exit_codes: list[int] = []
        self._driver: subprocess.Popen[bytes] | None = None
        self._command = [TRANSLOOM, "train", recipe, *options, "--run", location, "--json"]
        self._output = folder.with_name(f"{folder.name}.out")
        self._errors = folder.with_name(f"{folder.name}.err")

    def start(self) -> None:
        """Start the driver by the same command each time, with the current address of the head."""
        with self._output.open("w") as output, self._errors.open("a") as errors:
            self._driver = subprocess.Popen(
                [*self._command, "--address", self.cluster.address],
                env=self.cluster.environment,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    @property
    def driver(self) -> int:
        """The driver's process id."""
        assert self._driver
        return self._driver.pid

    def end(self) -> int:
        """Wait until the driver has ended; return its exit code, which is negative for a signal."""
        assert self._driver
        try:
            self.exit_codes.append(self._driver.wait(HANG_SECONDS))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver does not end\n{self.story()}") from None
        return self.exit_codes[-1]

    def reach(self, moment: Moment, rank: int) -> Reached:
        """Wait until the rank or the driver has stopped at the moment."""
        return self.wait_for(self.cluster.orders.want(moment, rank))

    def wait_for(self, order: str) -> Reached:
        """Wait until a process has stopped at a moment that was ordered."""
        wait_until(lambda: self.cluster.orders.look(order) or self.has_ended)
        reached = self.cluster.orders.look(order)
        assert reached, f"{order} did not come\n{self.story()}"
        return reached

    @property
    def outcome(self) -> str:
        """Return the outcome that the ended driver reported."""
        outcome: str = json.loads(self._output.read_text())["outcome"]
        return outcome

    def lines(self, kind: Any) -> list[Any]:
        """Return the lines of the record that belong to a class, or to one of several classes."""
        return [line for line in read_metrics(self.run.metrics) if isinstance(line, kind)]

    @property
    def recorded_step(self) -> int:
        """Last step in the record."""
        steps = [line.step for line in self.lines(StepLine)]
        return steps[-1] if steps else 0

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Newest checkpoint."""
        paths = list_checkpoints(self.run.checkpoints)
        return Checkpoint(paths[-1]) if paths else None

    def curve(self) -> Curve:
        steps = self.lines(StepLine)
        assert self.checkpoint
        return Curve(
            steps=[line.step for line in steps],
            losses=[line.loss for line in self.lines(TrainLine)],
            digests=[line.data_digest for line in steps],
            validations=[(line.step, line.scores) for line in self.lines(ValidationLine)],
            weights=[file.sha256 for file in self.checkpoint.header.files],
        )

    def check_nothing_is_left(self) -> None:
        """Check that no process of the run remains after the time that Ray needs to end it."""
        wait_until(
            lambda: not self.cluster.processes_of_runs(),
            LEFTOVER_SECONDS,
            lambda: [(p.pid, command_of(p)) for p in self.cluster.processes_of_runs()],
        )

    def kill(self) -> None:
        """End the driver and all processes of runs, in any state."""
        if self._driver:
            self._driver.kill()
            self._driver.wait()
        for process in self.cluster.processes_of_runs():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def story(self) -> str:
        """Return the driver's output and errors and the run's log, for error messages."""
        parts = [self._output, self._errors, self.run.log]
        return "\n".join(f"== {p.name}\n{p.read_text()[-5000:]}" for p in parts if p.exists())

    @property
    def has_ended(self) -> bool:
        return self._driver is None or self._driver.poll() is not None
