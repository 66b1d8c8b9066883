"""Run on hosts in namespaces, observed and disturbed from outside."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from run_store.folder import RunFolder
from run_store.record.metrics_file import read_backwards
from run_store.record.metrics_lines import StepLine, TrainLine
from support.cluster.hosts import Hosts
from support.cluster.processes import wait_until
from support.faults.moments import MID_STEP, Orders


class LabRun:
    """Driver on one of the hosts; every process of the cluster has `Orders.environment`."""

    def __init__(
        self,
        hosts: Hosts,
        driver_on: int,
        command: Sequence[str | Path],
        run: Path,
        orders: Orders,
        environment: Mapping[str, str],
        url: str | None = None,
    ) -> None:
        """Start the driver.

        Args:
            command: trains the run.
            run: the run's folder, or the driver's copy of a run in an object store, as a path that
                this process can read.
            url: the URL of a run in an object store, or None.
        """
        self.folder = RunFolder(run)
        self._orders = orders
        self._driver = hosts.start(driver_on, *command, "--run", url or run, env=environment)

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds, or fail as soon as the driver has ended."""
        wait_until(lambda: condition() or self._driver.poll() is not None)
        if not condition():
            raise AssertionError(f"the driver has ended\n{self._driver.communicate()[0]}")

    def wait_for_word(self, text: str, times: int = 1) -> None:
        """Wait until the log contains a text at least `times` times."""
        log = self.folder.log
        self.wait_until(lambda: log.exists() and log.read_text().count(text) >= times)

    @property
    def step(self) -> int:
        """Last recorded step."""
        lines = read_backwards(self.folder.metrics)
        return next((line.step for line in lines if isinstance(line, StepLine)), 0)

    @property
    def world_sizes(self) -> list[int]:
        """Return the world sizes of the recorded steps, without consecutive repetitions."""
        lines = [n for n in read_backwards(self.folder.metrics) if isinstance(n, TrainLine)]
        sizes: list[int] = []
        for line in reversed(lines):
            if sizes[-1:] != [line.world_size]:
                sizes.append(line.world_size)
        return sizes

    @contextmanager
    def standing_at(self, step: int) -> Iterator[None]:
        """Hold rank 0 in the middle of a later step."""
        order = self._orders.want(replace(MID_STEP, step=step))
        self.wait_until(lambda: self._orders.look(order))
        try:
            yield
        finally:
            self._orders.clear()

    def end(self) -> None:
        """Wait until the run is finished."""
        output, _ = self._driver.communicate()
        assert self._driver.returncode == 0, output
