"""Queue of the sentences of all requests to a run, and their grouping into batches.

A batch starts with the sentence that has waited longest, so that no sentence waits forever. Waiting
sentences with the most similar lengths and the same search options are then added. A batch is full
when its rows times the tokens of its longest row reach a limit. This product counts padding, which
costs as much as text.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")

# Maximum number of replica losses of a sentence that still shares a batch. After more losses, the
# sentence is translated alone, so that no other sentence fails if this one causes the losses.
MAX_LOSSES_IN_SHARED_BATCH = 1


class RequestedSearch(NamedTuple):
    """Search options of a sentence; all sentences of a batch have the same.

    Attributes:
        prefixed: True if the request has prefixes.
        aligned: True if the request asks for alignments.
    """

    tag: str | None
    n_best: int
    prefixed: bool
    aligned: bool


@dataclass(eq=False)
class Sentence(Generic[Owner]):
    """Sentence that waits for a replica.

    Attributes:
        prefix: the required beginning of the translation, or "".
        tokens: number of tokens, with tag and EOS.
        since: time of arrival, in seconds of a monotonic clock.
        owner: the request that contains the sentence.
        position: index of the sentence in its request.
        losses: number of replicas that were lost while they translated the sentence.
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
    """Waiting sentences in the order of their arrival, from which batches are taken."""

    def __init__(self, batch_tokens: int, wait_seconds: float) -> None:
        """Create an empty queue.

        Args:
            batch_tokens: maximum size of a batch: its rows times the tokens of its longest row.
            wait_seconds: maximum time that a sentence waits for other sentences of its batch.
        """
        self._batch_tokens = batch_tokens
        self._wait_seconds = wait_seconds
        self._waiting: list[Sentence[Owner]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, sentences: list[Sentence[Owner]]) -> None:
        self._waiting += sentences

    def add_again(self, sentences: list[Sentence[Owner]]) -> None:
        """Put back the sentences of a lost replica; the queue stays in the order of arrival."""
        for sentence in sentences:
            sentence.losses += 1
        self._waiting = sorted([*sentences, *self._waiting], key=lambda one: one.since)

    def drop(self, owner: Owner) -> None:
        """Drop the sentences of a request that was answered or abandoned."""
        self._waiting = [one for one in self._waiting if one.owner is not owner]

    def seconds_to_wait(self, now: float) -> float | None:
        """Return how long to wait before the next `take`, or None if the queue is empty."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        together = sum(one.tokens for one in self._waiting if one.search == first.search)
        if together >= self._batch_tokens or first.losses:
            return 0.0
        return max(0.0, first.since + self._wait_seconds - now)

    def take(self) -> list[Sentence[Owner]]:
        """Remove and return the sentences of the next batch, shortest first; [] if none wait."""
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
