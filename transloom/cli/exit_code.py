"""Exit code of a process that was a Ray driver.

A metrics thread of Ray outlives `ray.shutdown`. If it loses the head while the C library destroys
the thread's data at the end of the process, the process dies of SIGSEGV or SIGABRT. The parent,
such as a scheduler that restarts a preempted job, then gets the signal's exit code. See
docs/decisions/0075.
"""

import atexit
import ctypes


def keep_exit_code() -> None:
    """End this process with Python's exit code as soon as Python's shutdown is done.

    The destructors and exit functions of the C library and other libraries are skipped; the
    operating system frees their resources. Nothing is skipped with a C library that lacks
    `on_exit`; glibc has it.
    """
    atexit.register(_leave_first)


def _leave_first() -> None:
    """Make the C library exit before it runs any other exit function.

    It runs them in reverse order of registration. This one is registered last, at the end of
    Python's shutdown, so it runs first.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.fflush(None)  # output that libraries have buffered
        libc.on_exit(libc._exit, None)  # receives the exit code as its argument
