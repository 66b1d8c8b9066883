"""Console script: Ctrl-C ends it without a traceback, even during imports.

The command line takes a third of a second to import, and Python would answer an interrupt in that
time with a traceback. This module therefore imports as little as possible. Only the start of
Python, some hundredths of a second, stays unprotected.
"""

import os
import signal
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # exit code that a shell reports for a command ended by Ctrl-C


def main() -> None:
    """Run the command line; an interrupt ends it without a traceback, with exit code 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise SIGINT is ignored
        signal.signal(signal.SIGINT, _leave)
    from transloom.cli import app

    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app.main()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    # No exception is raised, because a library that is being imported could catch it.
    os._exit(INTERRUPTED)
