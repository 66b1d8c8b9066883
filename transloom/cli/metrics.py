"""Command `transloom metrics`: print or serve the metrics of runs, read from the runs' folders."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import ClusterError
from foundation.terminal import note, print_line, warn
from transloom.cli.completion import run_folders
from transloom.cli.run_urls import followed_copy

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import GaugeMetricFamily

    from run_store.record.run_metrics import MetricValue

LOOPBACK = "127.0.0.1"


def metrics(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[RUN|FOLDER|URL]",
            help="A run's folder or URL, or a folder or URL prefix that contains runs.",
            autocompletion=run_folders,
        ),
    ] = Path("runs"),
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve the metrics on this port of 127.0.0.1 until interrupted; 0 chooses a free "
            "port.",
        ),
    ] = None,
) -> None:
    """Print the metrics of runs as OpenMetrics text, for Prometheus.

    The command only reads the runs' folders, so the runs may train on any machine.

    Example:  transloom metrics runs
    """
    with followed_copy(
        folder, warn, is_followed=port is not None, only=("status.json", "nodes.jsonl")
    ) as runs:
        if port is None:
            print_line(metrics_text(runs).rstrip("\n"))
        else:
            serve_metrics(runs, port)


def metrics_text(folder: Path) -> str:
    """Return the metrics of a run, or of the runs in a folder, as OpenMetrics text.

    Raises:
        RunMismatchError: there is no such folder.
    """
    from prometheus_client.openmetrics.exposition import generate_latest

    return generate_latest(_registry(folder)).decode()


def serve_metrics(folder: Path, port: int) -> None:
    """Serve the metrics on this machine's loopback address until the process is interrupted.

    Raises:
        RunMismatchError: there is no such folder.
        ClusterError: the port is in use.
    """
    from prometheus_client import start_http_server

    runs_at(folder)
    try:
        server, thread = start_http_server(port, LOOPBACK, _registry(folder))
    except OSError as error:
        raise ClusterError(
            f"Cannot listen on port {port} of {LOOPBACK}: {error.strerror}. Name another port with "
            "--port"
        ) from error
    note(f"the metrics of {folder} are at http://{LOOPBACK}:{server.server_port}/metrics")
    with suppress(KeyboardInterrupt):
        thread.join()
    server.shutdown()
    server.server_close()


def runs_at(folder: Path) -> list[Path]:
    """Return the run in a folder as a list, or else the runs that the folder contains.

    Raises:
        RunMismatchError: there is no such folder.
    """
    from run_store.record.run_status import is_run, run_paths

    if is_run(folder):
        return [folder.absolute()]  # absolute, because the path "." has no name
    return run_paths(folder, " or a run")


def _registry(folder: Path) -> "CollectorRegistry":
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(_Runs(folder))
    return registry


class _Runs:
    """Collector that reads the runs of a folder for each scrape, one scrape at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serve_lock = threading.Lock()

    def describe(self) -> "list[GaugeMetricFamily]":
        """Return nothing, so that registration reads no files."""
        return []

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        from run_store.record.run_metrics import node_values, run_values

        with self._serve_lock:
            values = [
                value
                for run in runs_at(self._folder)
                for value in (*run_values(run), *node_values(run))
            ]
        yield from _families(values)


def _families(values: "Iterable[MetricValue]") -> "Iterator[GaugeMetricFamily]":
    """Group values by name, and yield each group as a metric family.

    Runs of the same name can have values with equal labels; only the first of these values is kept.
    """
    from prometheus_client.metrics_core import GaugeMetricFamily

    from run_store.record.run_metrics import NODE_METRICS, RUN_METRICS

    of_name: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for name, labels, value in values:
        of_name.setdefault(name, {}).setdefault(tuple(labels.items()), value)
    for name, found in of_name.items():
        keys = [key for key, _ in next(iter(found))]
        family = GaugeMetricFamily(name, (RUN_METRICS | NODE_METRICS)[name], labels=keys)
        for series, value in found.items():
            family.add_metric([text for _, text in series], value)
        yield family
