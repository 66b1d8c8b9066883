"""What a process does now and then beside its work."""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Regularly:
    """Does something again and again, in a thread of its own, while the context lasts.

    Base of those that do. What raises ends the thread.
    """

    def __init__(
        self,
        name: str,
        every_seconds: float | None,
        act: Callable[[], None],
        *,
        at_end: Callable[[], None] | None = None,
        patience_seconds: float | None = None,
    ) -> None:
        """
        Args:
            name: of the thread.
            every_seconds: None or 0 for never.
            at_end: done last, when the context is left.
            patience_seconds: for how long the thread is waited for at the end; None for as long as
                it takes.
        """
        self._every_seconds = every_seconds
        self._act = act
        self._at_end = at_end
        self._patience_seconds = patience_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        if self._every_seconds:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._every_seconds:
            self._thread.join(self._patience_seconds)

    def _work(self) -> None:
        while not self._over.wait(self._every_seconds):
            self._act()
        if self._at_end:
            self._at_end()
