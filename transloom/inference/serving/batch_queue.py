"""Sentences of several requests that wait for a replica, and which of them go together.

A batch begins with the sentence that has waited longest, so that none waits for ever, and takes
those nearest to it in length, as long as rows times the longest row are within the budget: padding
is computed like text. Sentences share a batch if they are searched in the same way.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")

# A sentence whose replica was lost that often goes alone: if it is what kills replicas, it takes no
# others with it.
MAX_LOSSES_IN_SHARED_BATCH = 1


class RequestedSearch(NamedTuple):
    """How a sentence is searched for."""

    tag: str | None
    n_best: int
    prefixed: bool
    aligned: bool


@dataclass(eq=False)
class Sentence(Generic[Owner]):
    """A sentence that waits.

    Attributes:
        tokens: with tag and EOS.
        since: when it arrived, in seconds of some clock.
        owner: the request that it is part of; `position` is its place there.
        losses: replicas that died on it.
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
        """
        Args:
            batch_tokens: rows times the longest row of a batch, at most.
            wait_seconds: how long a sentence waits for company.
        """
        self._batch_tokens = batch_tokens
        self._wait_seconds = wait_seconds
        self._waiting: list[Sentence[Owner]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sentences: list[Sentence[Owner]]) -> None:
        self._waiting += sentences

    def add_again(self, sentences: list[Sentence[Owner]]) -> None:
        """Take sentences back whose replica was lost; they arrived before all others."""
        for sentence in sentences:
            sentence.losses += 1
        self._waiting = sorted([*sentences, *self._waiting], key=lambda one: one.since)

    def drop(self, owner: Owner) -> None:
        """Forget the sentences of a request that nobody waits for any more."""
        self._waiting = [one for one in self._waiting if one.owner is not owner]

    def seconds_to_wait(self, now: float) -> float | None:
        """How long company is waited for before the next batch; None where nothing waits."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        together = sum(one.tokens for one in self._waiting if one.search == first.search)
        if together >= self._batch_tokens or first.losses:
            return 0.0
        return max(0.0, first.since + self._wait_seconds - now)

    def take(self) -> list[Sentence[Owner]]:
        """The next batch, shortest first; empty where nothing waits."""
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
