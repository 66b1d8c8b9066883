"""Console script, which ends on Ctrl-C without a traceback, even during imports.

Importing the command line takes a third of a second, and Python would answer an interrupt in that
time with a traceback. This module therefore imports as little as possible. Only the first
hundredths of a second, in which Python starts, remain unprotected.
"""

import os
import signal
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # exit code that a shell reports for a command ended by Ctrl-C


def main() -> None:
    """Run the command line, and exit with code 130 and without a traceback on an interrupt."""
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # otherwise the parent process has made this process ignore SIGINT
        signal.signal(signal.SIGINT, _leave)
    from transloom.cli import app

    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app.main()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    # Raise no exception, because a library that is being imported could catch it.
    os._exit(INTERRUPTED)
