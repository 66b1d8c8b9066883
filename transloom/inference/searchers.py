"""Interface of a translator's search: `Searcher`.

    batches ─▶ Searcher.search ─▶ for each batch the hypotheses of its sentences, in order

The translator cuts sentences into batches and decodes hypotheses into text, independently of the
search. `OwnSearcher` is our own beam search, in this process or in several.
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
    """Search for hypotheses."""

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """Yield the hypotheses of each batch's sentences, in the order of the batches.

        A batch's targets are prefixes, which its hypotheses begin with.

        Raises:
            PrefixError: a translation cannot begin with its prefix; numbered by `pair_ids`.
            TranslationError: the search cannot continue.
        """


class Searcher(Search, Protocol):
    """Search that can use several of the host's cores.

    Attributes:
        engine: name of the library and its number format, valid in a file name, or None for our own
            search.
    """

    engine: str | None

    def prepare(self) -> None:
        """Do work in advance that would delay the first search."""

    def in_processes(self, processes: int) -> AbstractContextManager[Search]:
        """Run the search in this number of processes, which share the cores.

        One process means this process.

        Raises:
            TranslationError: several processes are not possible.
        """

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """Return the number of processes that saves time.

        Args:
            bytes_of_longest: memory that the longest sentence needs.
        """


class OwnSearcher:
    """Our own search, over one network or several."""

    engine: str | None = None

    def __init__(self, find: Find, origin: Origin | None) -> None:
        """Create a search in this process.

        Args:
            find: the search of a batch in this process.
            origin: from which other processes load the search, or None if they cannot.
        """
        self._find = find
        self._origin = origin

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """See `Search`."""
        return (self._find(decoding, batch) for batch in batches)

    def prepare(self) -> None:
        """Do nothing, since the networks are already loaded."""

    @contextmanager
    def in_processes(self, processes: int) -> Generator[Search]:
        """See `Searcher`."""
        if processes == 1:
            yield self
            return
        assert self._origin is not None, "other processes can load only weights of a run"
        with search_processes(processes, self._origin) as search_there:
            yield search_there

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """See `Searcher`."""
        return processes_for(sentences, bytes_of_longest)


def network_searcher(model: Transformer, weights: Weights | None) -> OwnSearcher:
    """Return our own search over one network.

    Args:
        weights: from which other processes load the network, or None if they cannot.
    """
    return OwnSearcher(partial(search, model), None if weights is None else NetworkOrigin(weights))
