"""`transloom metrics`: the numbers of runs for a program that watches them."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import tell
from transloom.cli.completion import run_folders


def metrics(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[RUN|FOLDER]",
            help="A run's folder, or one in which runs lie.",
            autocompletion=run_folders,
        ),
    ] = Path("runs"),
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve them here at 127.0.0.1 until interrupted; 0 for any free port.",
        ),
    ] = None,
) -> None:
    """Print the numbers of runs in OpenMetrics text, for Prometheus.

    Reads their folders alone, wherever they are trained. Example:  transloom metrics runs
    """
    from transloom.commands.metrics import metrics_text, serve_metrics

    if port is None:
        tell(metrics_text(folder).rstrip("\n"))
    else:
        serve_metrics(folder, port)
