"""What finds a translator's hypotheses: a `Searcher`.

    batches ─▶ Searcher.search ─▶ for each batch the hypotheses of its sentences, in order

The translator cuts sentences into batches and turns hypotheses into text; it does not know what
searches. `OwnSearcher` is our own beam search, in this process or in several.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from data_pipeline.batching.batch import MicroBatch
from model.config.transformer import DecodingConfig
from model.networks.transformer import Transformer
from transloom.inference.search_processes import (
    Find,
    Found,
    NetworkOrigin,
    Origin,
    processes_for,
    search,
    search_processes,
)
from transloom.inference.trained_network import Weights


class Search(Protocol):
    """Finds hypotheses."""

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """Hypotheses of each batch's sentences, in the order of the batches.

        A batch's targets are prefixes, which its hypotheses begin with.

        Raises:
            PrefixError: a translation cannot begin with its prefix; numbered by `pair_ids`.
            TranslationError: the search cannot go on.
        """


class Searcher(Search, Protocol):
    """Finds hypotheses, on several of the host's cores if it is told to.

    Attributes:
        engine: a name of the library and its numbers, fit for a file's name; None: our own search.
    """

    engine: str | None

    def prepare(self) -> None:
        """Do what the first search would have to wait for."""

    def in_processes(self, processes: int) -> AbstractContextManager[Search]:
        """The same search by so many at once, which share the cores; one is this process.

        Raises:
            TranslationError: it cannot be done by several.
        """

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """How many at once are worth it.

        Args:
            bytes_of_longest: what the longest sentence takes.
        """


class OwnSearcher:
    """Our own search, over one network or several."""

    engine: str | None = None

    def __init__(self, find: Find, origin: Origin | None) -> None:
        """
        Args:
            find: the search of a batch in this process.
            origin: what other processes make it of; None: nothing, so there are none.
        """
        self._find = find
        self._origin = origin

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """See `Search`."""
        return (self._find(decoding, batch) for batch in batches)

    def prepare(self) -> None:
        """Nothing: the networks are there."""

    @contextmanager
    def in_processes(self, processes: int) -> Generator[Search]:
        """See `Searcher`."""
        if processes == 1:
            yield self
            return
        assert self._origin is not None, "only weights that were loaded can be loaded elsewhere"
        with search_processes(processes, self._origin) as search_there:
            yield search_there

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """See `Searcher`."""
        return processes_for(sentences, bytes_of_longest)


def network_searcher(model: Transformer, weights: Weights | None) -> OwnSearcher:
    """Our own search over one network.

    Args:
        weights: where other processes find it; None: nowhere, so there are none.
    """
    return OwnSearcher(partial(search, model), None if weights is None else NetworkOrigin(weights))
