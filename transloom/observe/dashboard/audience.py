"""The pages that listen: each has a bounded queue, so that a slow one holds up nobody.

A message is made once and shared by all. A page that takes too little of them is let go; its
browser comes back by itself and asks for what it has missed.
"""

import asyncio
from collections import deque

from pydantic import BaseModel

# Of one page, which its browser has not taken yet.
MOST_WAITING_BYTES = 2_000_000
MOST_PAGES = 32


class TooManyPagesError(Exception):
    """No more pages can listen."""


class Page:
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
        if self._bytes > MOST_WAITING_BYTES:
            self.let_go()
        elif not self.is_let_go:
            self._waiting.append(message)
            self._wakes.set()

    def let_go(self) -> None:
        self.is_let_go = True
        self._waiting.clear()
        self._wakes.set()

    async def take(self, patience_seconds: float) -> bytes | None:
        """The messages that wait, as one; nothing after so many seconds; None if it is let go."""
        if not self._waiting and not self.is_let_go:
            try:
                await asyncio.wait_for(self._wakes.wait(), patience_seconds)
            except TimeoutError:
                return b""
        self._wakes.clear()
        if self.is_let_go:
            return None
        messages = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return messages


class Audience:
    """All pages that listen."""

    def __init__(self) -> None:
        self._pages: set[Page] = set()

    def __len__(self) -> int:
        return len(self._pages)

    def enter(self) -> Page:
        """
        Raises:
            TooManyPagesError: as many as may listen do.
        """
        if len(self._pages) >= MOST_PAGES:
            raise TooManyPagesError(
                f"{MOST_PAGES} pages follow the runs already: close some of them"
            )
        page = Page()
        self._pages.add(page)
        return page

    def leave(self, page: Page) -> None:
        self._pages.discard(page)

    def tell(self, event: str, answer: BaseModel) -> None:
        """Send a server-sent event to all."""
        if self._pages:
            data = answer.model_dump_json(by_alias=True)  # one line: JSON escapes line ends
            message = f"event: {event}\ndata: {data}\n\n".encode()
            for page in self._pages:
                page.put(message)

    def close(self) -> None:
        for page in self._pages:
            page.let_go()
