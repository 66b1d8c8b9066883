"""Preservation of the exit code of a process that was a Ray driver.

A metrics thread of Ray outlives `ray.shutdown`. If it loses the head while the C library destroys
the thread's data at the end of the process, the process dies of SIGSEGV or SIGABRT. The parent,
such as a scheduler that restarts a preempted job, then gets the signal's exit code. See
docs/decisions/0075.
"""

import atexit
import ctypes


def keep_exit_code() -> None:
    """End this process with Python's exit code as soon as Python's shutdown is done.

    This skips the destructors and exit functions of the C library and of other libraries; the
    operating system frees their resources. Without `on_exit`, which glibc has and other C libraries
    may lack, the process ends as usual.
    """
    atexit.register(_leave_first)


def _leave_first() -> None:
    """Make the C library exit before it runs any other exit function.

    The C library runs exit functions in reverse order of registration. Python calls this function
    at the end of its shutdown, so `_exit` is registered last and runs first.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.fflush(None)  # output that libraries have buffered
        libc.on_exit(libc._exit, None)  # the C library calls `_exit` with the exit code
