"""The console script: Ctrl-C ends it without a traceback, even during imports.

The command line takes a third of a second to import, and Python would answer an interrupt in that
time with a traceback. So this module imports next to nothing. What is left is the start of Python
itself, some hundredths of a second.
"""

import os
import signal
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT  # what a shell reports for a command that Ctrl-C has ended


def main() -> None:
    """Run the command line; an interrupt ends it without a traceback, with the code 130."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _leave)
    from transloom.cli import app

    try:
        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        app.main()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    # Not an exception: a library that is being imported might catch it.
    os._exit(INTERRUPTED)
