"""Subscribed pages, each with a bounded queue, so that a slow page delays no other page.

A message is encoded once and shared by all pages. A page that reads too slowly is disconnected; its
browser reconnects automatically and requests the missed data.
"""

import asyncio
from collections import deque

from pydantic import BaseModel

from foundation.shown_urls import with_urls

# Maximum size in bytes of the messages that are queued for one page.
MAX_WAITING_BYTES = 2_000_000
MAX_PAGES = 32


class TooManyPagesError(Exception):
    """Refusal to subscribe another page, because the limit is reached."""


class PageSubscriber:
    """A subscribed page.

    Attributes:
        is_disconnected: True if the page is disconnected and receives no more messages.
    """

    def __init__(self) -> None:
        self.is_disconnected = False
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._wakes = asyncio.Event()

    def put(self, message: bytes) -> None:
        self._bytes += len(message)
        if self._bytes > MAX_WAITING_BYTES:
            self.disconnect()
        elif not self.is_disconnected:
            self._waiting.append(message)
            self._wakes.set()

    def disconnect(self) -> None:
        self.is_disconnected = True
        self._waiting.clear()
        self._wakes.set()

    async def take(self, timeout_seconds: float) -> bytes | None:
        """Wait for messages, and return all queued messages in one string of bytes.

        Return empty bytes if no message comes before the timeout, and None if the page is
        disconnected.
        """
        if not self._waiting and not self.is_disconnected:
            try:
                await asyncio.wait_for(self._wakes.wait(), timeout_seconds)
            except TimeoutError:
                return b""
        self._wakes.clear()
        if self.is_disconnected:
            return None
        messages = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return messages


class PageSubscribers:
    """All subscribed pages."""

    def __init__(self) -> None:
        self._pages: set[PageSubscriber] = set()

    def __len__(self) -> int:
        return len(self._pages)

    def enter(self) -> PageSubscriber:
        """Subscribe a page.

        Raises:
            TooManyPagesError: the limit of pages is reached.
        """
        if len(self._pages) >= MAX_PAGES:
            raise TooManyPagesError(
                f"{MAX_PAGES} pages already follow the runs, which is the maximum: close some pages"
            )
        page = PageSubscriber()
        self._pages.add(page)
        return page

    def leave(self, page: PageSubscriber) -> None:
        self._pages.discard(page)

    def publish(self, event: str, answer: BaseModel) -> None:
        """Send a server-sent event with this name and content to all pages."""
        if self._pages:
            # A single line, because JSON escapes line ends.
            data = with_urls(answer.model_dump_json(by_alias=True))
            message = f"event: {event}\ndata: {data}\n\n".encode()
            for page in self._pages:
                page.put(message)

    def close(self) -> None:
        for page in self._pages:
            page.disconnect()
