"""Console script, which ends on Ctrl-C without a traceback, even during imports.

Importing the command line takes a third of a second, and Python would answer an interrupt in that
time with a traceback. This module therefore imports as little as possible. Only the first
hundredths of a second, in which Python starts, remain unprotected.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType, ModuleType

_INSTALLATION = Path(__file__).resolve().parents[2]
INTERRUPTED = 128 + signal.SIGINT  # exit code that a shell reports for a command ended by Ctrl-C


def main() -> None:
    """Run the command line, and exit with code 130 and without a traceback on an interrupt."""
    # If the parent process has made this process ignore SIGINT, continue to ignore it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    app = import_app()
    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app.main()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def import_app() -> ModuleType:
    """Import the command line from this installation, unless another project has overwritten it."""
    check = runpy.run_path(str(_INSTALLATION / "cluster" / "own_files.py"))["overwritten_package"]
    if problem := check(_INSTALLATION):
        sys.exit(f"error: {problem}")  # prints to standard error; the exit code is 1
    # First on the path, because other directories, such as those of an editable installation, may
    # contain packages of the same names.
    sys.path.insert(0, str(_INSTALLATION))
    try:
        from transloom.cli import app
    finally:
        sys.path.remove(str(_INSTALLATION))
    return app


def _leave(number: int, frame: FrameType | None) -> None:
    # Raise no exception, because a library that is being imported could catch it.
    os._exit(INTERRUPTED)
