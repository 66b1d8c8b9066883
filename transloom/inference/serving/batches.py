"""Sentences that wait for a replica, of all requests to a run, and their grouping into batches.

A batch starts with the sentence that has waited longest, so that no sentence waits forever. Waiting
sentences with the most similar lengths and the same search options are then added. A batch is full
when its rows times the tokens of its longest row reach a limit. This product counts padding, which
costs as much as text.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from foundation.file_model import FileModel
from transloom.inference.serving.messages import OneTranslation
from transloom.inference.serving.settings import Batching

# Maximum number of replica losses of a sentence that still shares a batch. After more losses, the
# sentence is translated alone, so that no other sentence fails if this one causes the losses.
MAX_LOSSES_IN_SHARED_BATCH = 1


class RequestedSearch(NamedTuple):
    """Search options of a sentence; all sentences of a batch have equal options.

    Attributes:
        prefixed: True if the request has prefixes.
        aligned: True if the request asks for alignments.
    """

    tag: str | None
    n_best: int
    prefixed: bool
    aligned: bool


class Batch(FileModel):
    """Sentences that a replica translates together.

    Attributes:
        prefixes: the required beginning of each sentence's translation, or "".
    """

    search: RequestedSearch
    texts: list[str]
    prefixes: list[str]


class Translated(NamedTuple):
    """Translations of a sentence, the best first, and the checkpoint that made them."""

    translations: list[OneTranslation]
    checkpoint: str


@dataclass(eq=False)
class Sentence:
    """Sentence that waits for its translation.

    Attributes:
        prefix: the required beginning of the translation, or "".
        tokens: number of tokens, with tag and EOS.
        since: time of arrival, in seconds of a monotonic clock.
        position: index of the sentence in its request.
        result: the translation, or an error of the request; cancelled if no request waits for it.
        losses: number of replicas that were lost while they translated the sentence.
    """

    text: str
    prefix: str
    tokens: int
    search: RequestedSearch
    since: float
    position: int
    result: asyncio.Future[Translated]
    losses: int = 0

    def fail(self, error: Exception) -> None:
        if not self.result.done():
            self.result.set_exception(error)


class SentenceQueue:
    """Waiting sentences in the order of their arrival, from which batches are taken."""

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._waiting: list[Sentence] = []

    def __len__(self) -> int:
        """Return the number of waiting sentences, without those whose request has ended."""
        return sum(not one.result.done() for one in self._waiting)

    def add(self, sentences: Sequence[Sentence]) -> None:
        """Add sentences; those of a lost replica, which came earlier, get their places back."""
        self._waiting = sorted([*self._waiting, *sentences], key=lambda one: one.since)

    def seconds_to_wait(self, now: float) -> float | None:
        """Return how long to wait before the next `take`, or None if the queue is empty."""
        self._waiting = [one for one in self._waiting if not one.result.done()]
        if not self._waiting:
            return None
        first = self._waiting[0]
        together = sum(one.tokens for one in self._waiting if one.search == first.search)
        if together >= self._batching.tokens or first.losses:
            return 0.0
        return max(0.0, first.since + self._batching.wait_seconds - now)

    def take(self) -> list[Sentence]:
        """Remove and return the sentences of the next batch, shortest first.

        The queue must not be empty.
        """
        first = self._waiting[0]
        batch, longest = [first], first.tokens
        for one in sorted(self._waiting[1:], key=lambda one: abs(one.tokens - first.tokens)):
            alone = max(first.losses, one.losses) > MAX_LOSSES_IN_SHARED_BATCH
            padded = (len(batch) + 1) * max(longest, one.tokens)
            if one.search == first.search and not alone and padded <= self._batching.tokens:
                batch.append(one)
                longest = max(longest, one.tokens)
        taken = set(batch)
        self._waiting = [one for one in self._waiting if one not in taken]
        return sorted(batch, key=lambda one: one.tokens)
