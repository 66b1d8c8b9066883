"""Threads held at a point, and let go even if the test fails meanwhile."""

import threading
from typing import Self

from support.cluster.processes import HANG_SECONDS


class Gate:
    """Hold every thread that calls it until it is opened.

    The end of the context opens it, so that nothing outside waits for a thread that an assertion
    has left behind. Enter it last: after the pool or the server that ends with its threads.
    """

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def __call__(self, *_: object) -> None:
        self._reached.set()
        assert self._open.wait(HANG_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()

    def wait_until_reached(self) -> None:
        assert self._reached.wait(HANG_SECONDS)

    def open(self) -> None:
        self._open.set()
