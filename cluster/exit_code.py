"""The exit code of a process that has been a driver of Ray.

A thread of Ray's own that reports metrics outlives `ray.shutdown`. If it finds no head any more
while the C library destroys, at the end of the process, what the thread uses, the process dies of
SIGSEGV or SIGABRT. Whoever waits for the exit code, such as a scheduler that starts a preempted job
again, then gets that of the signal. See docs/decisions/0075.
"""

import atexit
import os
import sys


class KeptExitCode:
    """Ends the process with `code`, whatever its libraries would do at the very end.

    Python's part of the end is as ever: threads that are no daemons are waited for, and functions
    run that were registered with `atexit` after this object was made: make it early. Then the
    process is gone, and the system takes back what its libraries hold.

    Attributes:
        code: None leaves the end to Python.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        atexit.register(self._leave)  # what is registered first runs last

    def take(self, end: SystemExit) -> None:
        """Take the code of an exit. One with a text is left to Python, which prints it."""
        if end.code is None or isinstance(end.code, int):
            self.code = end.code or 0

    def _leave(self) -> None:
        if self.code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):  # the reader has left: Python has a code for that
            return
        os._exit(self.code)
