"""The pages that listen: each has a bounded queue, so that a slow one holds up nobody.

A message is made once and shared by all. A page that takes too little of them is let go; its
browser comes back by itself and asks for what it has missed.
"""

import asyncio
from collections import deque

from pydantic import BaseModel

# Of one page, which its browser has not taken yet.
MAX_WAITING_BYTES = 2_000_000
MAX_PAGES = 32


class TooManyPagesError(Exception):
    """No more pages can listen."""


class PageSubscriber:
    """A page that listens.

    Attributes:
        is_let_go: whether it gets nothing any more.
    """

    def __init__(self) -> None:
        self.is_let_go = False
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._wakes = asyncio.Event()

    def put(self, message: bytes) -> None:
        self._bytes += len(message)
        if self._bytes > MAX_WAITING_BYTES:
            self.disconnect()
        elif not self.is_let_go:
            self._waiting.append(message)
            self._wakes.set()

    def disconnect(self) -> None:
        self.is_let_go = True
        self._waiting.clear()
        self._wakes.set()

    async def take(self, timeout_seconds: float) -> bytes | None:
        """The messages that wait, as one; nothing after so many seconds; None if it is let go."""
        if not self._waiting and not self.is_let_go:
            try:
                await asyncio.wait_for(self._wakes.wait(), timeout_seconds)
            except TimeoutError:
                return b""
        self._wakes.clear()
        if self.is_let_go:
            return None
        messages = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return messages


class PageSubscribers:
    """All pages that listen."""

    def __init__(self) -> None:
        self._pages: set[PageSubscriber] = set()

    def __len__(self) -> int:
        return len(self._pages)

    def enter(self) -> PageSubscriber:
        """
        Raises:
            TooManyPagesError: as many as may listen do.
        """
        if len(self._pages) >= MAX_PAGES:
            raise TooManyPagesError(
                f"{MAX_PAGES} pages follow the runs already: close some of them"
            )
        page = PageSubscriber()
        self._pages.add(page)
        return page

    def leave(self, page: PageSubscriber) -> None:
        self._pages.discard(page)

    def publish(self, event: str, answer: BaseModel) -> None:
        """Send a server-sent event to all."""
        if self._pages:
            data = answer.model_dump_json(by_alias=True)  # one line: JSON escapes line ends
            message = f"event: {event}\ndata: {data}\n\n".encode()
            for page in self._pages:
                page.put(message)

    def close(self) -> None:
        for page in self._pages:
            page.disconnect()
