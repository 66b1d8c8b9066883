"""`transloom dashboard`: runs in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import print_line, warn

COMMAND_LINE = "transloom.cli.app"


def dashboard(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder in which the runs lie, or a run.")
    ] = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Where it listens; other machines reach 127.0.0.1 by ssh -L alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: 8643, or the next one that is free."),
    ] = None,
) -> None:
    """Show runs in a browser, live and afterwards: table, curves, events, steps from inside.

    Reads the runs' folders alone, and prints an address with a token. Example:

      transloom dashboard runs
    """
    from transloom.observe.dashboard.serving import serve

    serve(folder, host, port, command_line=COMMAND_LINE, print_line=print_line, warn=warn)
