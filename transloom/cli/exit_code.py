"""The exit code of a process that has been a driver of Ray.

A thread of Ray's own that reports metrics outlives `ray.shutdown`. If it finds no head any more
while the C library destroys, at the end of the process, what the thread uses, the process dies of
SIGSEGV or SIGABRT. Whoever waits for the exit code, such as a scheduler that starts a preempted job
again, then gets that of the signal. See docs/decisions/0075.
"""

import atexit
import ctypes


def keep_exit_code() -> None:
    """Have this process end once Python's part of its end is done, with the code that Python says.

    What the C library and the libraries would do then (destructors, their functions for the exit)
    is left out, and the system takes back what they hold. Where the C library has no `on_exit`,
    which glibc has, nothing is left out.
    """
    atexit.register(_leave_first)


def _leave_first() -> None:
    """Called late, since what is registered last for the exit of the process runs first."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.fflush(None)  # what libraries have printed
        libc.on_exit(libc._exit, None)  # which is called with the exit code
