"""Queue of the sentences of several requests, and their grouping into batches.

A batch starts with the sentence that has waited longest, so that none waits forever. The sentences
nearest to it in length are added while rows times the longest row are within the budget, since
padding costs as much as text. Sentences share a batch only if they need the same search.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")

# A sentence that lost more replicas than this no longer shares a batch. If it is what kills
# replicas, it fails no other sentences.
MAX_LOSSES_IN_SHARED_BATCH = 1


class RequestedSearch(NamedTuple):
    """Search options of a sentence; sentences of one batch share them."""

    tag: str | None
    n_best: int
    prefixed: bool
    aligned: bool


@dataclass(eq=False)
class Sentence(Generic[Owner]):
    """Sentence that waits for a replica.

    Attributes:
        tokens: number of tokens, with tag and EOS.
        since: time of arrival, in seconds of a monotonic clock.
        owner: the request that it is part of; `position` is its index in the request.
        losses: replicas that died with it.
    """

    text: str
    prefix: str
    tokens: int
    search: RequestedSearch
    since: float
    owner: Owner
    position: int
    losses: int = 0


class SentenceQueue(Generic[Owner]):
    """Sentences in the order of their arrival, cut into batches."""

    def __init__(self, batch_tokens: int, wait_seconds: float) -> None:
        """Create an empty queue.

        Args:
            batch_tokens: maximum of rows times the longest row of a batch.
            wait_seconds: maximum time that a sentence waits for others.
        """
        self._batch_tokens = batch_tokens
        self._wait_seconds = wait_seconds
        self._waiting: list[Sentence[Owner]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sentences: list[Sentence[Owner]]) -> None:
        self._waiting += sentences

    def add_again(self, sentences: list[Sentence[Owner]]) -> None:
        """Put back sentences whose replica was lost, in the order of their arrival."""
        for sentence in sentences:
            sentence.losses += 1
        self._waiting = sorted([*sentences, *self._waiting], key=lambda one: one.since)

    def drop(self, owner: Owner) -> None:
        """Drop the sentences of a request that was answered or abandoned."""
        self._waiting = [one for one in self._waiting if one.owner is not owner]

    def seconds_to_wait(self, now: float) -> float | None:
        """Return how long to wait for more sentences, or None if the queue is empty."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        together = sum(one.tokens for one in self._waiting if one.search == first.search)
        if together >= self._batch_tokens or first.losses:
            return 0.0
        return max(0.0, first.since + self._wait_seconds - now)

    def take(self) -> list[Sentence[Owner]]:
        """Remove and return the next batch, shortest first, or [] if the queue is empty."""
        if not self._waiting:
            return []
        first = self._waiting[0]
        chosen = (
            [first]
            if first.losses > MAX_LOSSES_IN_SHARED_BATCH
            else self._compatible_sentences(first)
        )
        taken = set(map(id, chosen))
        self._waiting = [one for one in self._waiting if id(one) not in taken]
        return chosen

    def _compatible_sentences(self, first: Sentence[Owner]) -> list[Sentence[Owner]]:
        alike = sorted(
            (
                one
                for one in self._waiting
                if one.search == first.search and one.losses <= MAX_LOSSES_IN_SHARED_BATCH
            ),
            key=lambda one: one.tokens,
        )
        low = bisect_left(alike, first.tokens, key=lambda one: one.tokens)
        while alike[low] is not first:
            low += 1
        high = low + 1
        while True:
            shorter = alike[low - 1] if low > 0 else None
            longer = alike[high] if high < len(alike) else None
            rows = high - low + 1
            if longer and rows * longer.tokens > self._batch_tokens:
                longer = None
            if shorter and rows * alike[high - 1].tokens > self._batch_tokens:
                shorter = None
            if longer and not (
                shorter and first.tokens - shorter.tokens < longer.tokens - first.tokens
            ):
                high += 1
            elif shorter:
                low -= 1
            else:
                return alike[low:high]
