"""Command `transloom dashboard`: show runs in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from foundation.terminal import print_line, warn
from transloom.cli.run_urls import followed_copy

COMMAND_LINE = "transloom.cli.app"


def dashboard(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[FOLDER|URL]",
            help="Folder or URL prefix that contains runs, or the folder or URL of one run.",
        ),
    ] = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Other machines can reach 127.0.0.1 only through ssh -L."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Port to listen on. Default: 8643, or the next free port."
        ),
    ] = None,
) -> None:
    """Show runs in a browser, during and after training: table, curves, events, steps in detail.

    The command only reads the runs' folders. It prints a URL with an access token.

    Example:

      transloom dashboard runs
    """
    from transloom.observe.dashboard.serving import serve

    with followed_copy(folder, warn) as runs:
        serve(runs, host, port, command_line=COMMAND_LINE, print_line=print_line, warn=warn)
