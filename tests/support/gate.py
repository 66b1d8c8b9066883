"""Gate that holds threads, and releases them even if the test fails."""

import threading
from typing import Self

from support.cluster.processes import HANG_SECONDS


class Gate:
    """Hold every thread that calls this object until it is opened.

    The end of the context opens the gate, so that no thread keeps waiting after a failed assertion.
    Enter the context last: after that of the pool or server that waits for these threads.
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
