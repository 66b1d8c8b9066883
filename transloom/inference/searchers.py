"""Interface between a translator and its search: `Searcher`.

    batches ─▶ Searcher.search ─▶ for each batch the hypotheses of its sentences, in order

The translator divides sentences into batches, and decodes hypotheses into text, in the same way for
every searcher. `OwnSearcher` is our own beam search, in this process or in several.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.pair import SOURCE
from model.config.transformer import DecodingConfig
from model.networks.transformer import Transformer
from transloom.inference.search_processes import (
    Find,
    Found,
    Search,
    SearchOrigin,
    processes_for,
    search_processes,
    search_together,
)
from transloom.inference.trained_network import Weights


class Searcher(Protocol):
    """Object that searches for hypotheses, and can use several of the host's cores.

    Attributes:
        engine: name of the library and its number format, usable in file names, or None for our own
            search.
    """

    engine: str | None

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """Search in this process, as `Search` describes."""

    def prepare(self) -> None:
        """Do work in advance that would otherwise delay the first search."""

    def in_processes(self, processes: int) -> AbstractContextManager[Search]:
        """Return a context in which a search runs in this number of processes.

        The processes share the cores. With one process, the search runs in this process.

        Raises:
            TranslationError: the search cannot run in several processes.
        """

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """Return the number of processes with which a search takes the least time.

        Args:
            sentences: number of sentences to translate.
            bytes_of_longest: memory that the longest sentence needs.
        """


class OwnSearcher:
    """Our own search, over one network or several."""

    engine: str | None = None

    def __init__(self, find: Find, origin: SearchOrigin | None) -> None:
        """Create a search in this process.

        Args:
            find: searches a batch in this process.
            origin: description from which other processes load the same search, or None if they
                cannot load it.
        """
        self._find = find
        self._origin = origin

    def search(self, decoding: DecodingConfig, batches: Sequence[MicroBatch]) -> Iterator[Found]:
        """Yield the hypotheses of each batch, as `Search` describes."""
        return (self._find(decoding, batch) for batch in batches)

    def prepare(self) -> None:
        """Do nothing, since the networks are already loaded."""

    @contextmanager
    def in_processes(self, processes: int) -> Generator[Search]:
        """Yield a search that runs in this number of processes, as `Searcher` describes."""
        if processes == 1:
            yield self.search
            return
        assert self._origin is not None, "other processes can load only weights of a run"
        with search_processes(processes, self._origin) as search:
            yield search

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """Return the number of processes for the least time, as `Searcher` describes."""
        return processes_for(sentences, bytes_of_longest)


def network_searcher(model: Transformer, weights: Weights | None) -> OwnSearcher:
    """Return our own search over one network.

    Args:
        weights: identity with which other processes load the network, or None if they cannot load
            it.
    """
    origin = None if weights is None else SearchOrigin((weights,), (SOURCE,))
    return OwnSearcher(partial(search_together, [model], [SOURCE]), origin)
