"""Child processes that end with their parent, however the parent ends.

A killed parent does not end its children. Each child watches a pipe that closes with its parent:

    multiprocessing  the sentinel of the parent process              end_with_parent
    subprocess       standard input, which the parent keeps open     enter_background
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import wait

LOWEST_PRIORITY = 19


def end_with_parent() -> None:
    """End this process of `multiprocessing` when its parent ends, even in the middle of a job."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    _call_after(lambda: wait([parent.sentinel]), lambda: os._exit(1))


def enter_background() -> None:
    """Take the lowest CPU priority, and kill this process group when standard input ends.

    The parent starts the process in a new session, with a pipe as its standard input.
    """
    os.nice(LOWEST_PRIORITY)
    owner = io.FileIO(os.dup(sys.stdin.fileno()))
    _call_after(owner.read, lambda: os.killpg(os.getpgrp(), signal.SIGKILL))


def _call_after(wait_for_end: Callable[[], object], call: Callable[[], object]) -> None:
    def watch() -> None:
        wait_for_end()
        call()

    threading.Thread(target=watch, name="owner's end", daemon=True).start()
