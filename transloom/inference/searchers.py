"""Interface between a translator and its search: `Searcher`.

    batches ─▶ Searcher.search ─▶ for each batch the hypotheses of its sentences, in order

The translator divides sentences into batches, and decodes hypotheses into text, in the same way for
every searcher. `OwnSearcher` is our own beam search, in this process or in several.

The operations of a decoding step are too small to be divided efficiently among threads. On two
cores, two processes with one thread each are 1.1 to 1.3 times as fast as one process with two
threads (a tiny model, 2026-11-21). Each process loads its own copy of the weights. Batches are
formed before they are distributed, so translations do not depend on the number of processes.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import torch

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.pair import SOURCE, TARGET
from foundation.process_pool import cores, enough_processes, process_pool
from model.blocks.linear import pack
from model.config.transformer import DecodingConfig
from model.errors import PrefixError
from model.generation.search import Hypothesis, ensemble_search
from model.networks.transformer import Transformer
from trainer.errors import TranslationError
from trainer.process.host_memory import available_bytes, retain_freed_memory
from trainer.tasks.batch import to_device
from transloom.inference.trained_network import Weights, load_network

Found = list[list[Hypothesis]]  # the hypotheses of each sentence of a batch

# Function that yields the hypotheses of each batch's sentences, in the order of the batches. The
# target of each sentence in a batch is a prefix, with which all of its hypotheses begin. If a
# translation cannot begin with its prefix, the function raises PrefixError, whose index is the
# sentence's number in `pair_ids`. If the search cannot continue, it raises TranslationError.
Search = Callable[[DecodingConfig, Sequence[MicroBatch]], Iterator[Found]]

# Number of sentences that one process can translate while other processes start. With fewer
# sentences, one process is faster.
SENTENCES_OF_ONE_PROCESS = 2_000
# Maximum memory of a process with a base model.
BYTES_PER_PROCESS = 2 * 2**30


def search_together(
    models: Sequence[Transformer],
    fields: Sequence[str],
    decoding: DecodingConfig,
    batch: MicroBatch,
) -> Found:
    """Search for translations of each source in a batch, with one network or an ensemble.

    The target of each sentence in the batch is a prefix, with which all of its hypotheses begin.

    Args:
        fields: the field of the batch that each network reads as its source.

    Raises:
        PrefixError: a translation cannot begin with its prefix; the error's index is the sentence's
            number in `pair_ids`.
    """
    seen = []
    for model, field in zip(models, fields, strict=True):
        pack(model)
        read = MicroBatch(
            batch.pair_ids, {SOURCE: batch.fields[field], TARGET: batch.fields[TARGET]}
        )
        seen.append(to_device(read, model.vocabulary, next(model.parameters()).device))
    prefix_bp = seen[0].target_input[:, 1:]  # without BOS, with padding instead of EOS
    try:
        return ensemble_search(models, [one.source for one in seen], decoding, prefix_bp)
    except PrefixError as error:
        raise PrefixError(int(batch.pair_ids[error.index]), error.problem) from error


# Function that finds the hypotheses of a batch with networks that it has already loaded.
Find = Callable[[DecodingConfig, MicroBatch], Found]


@dataclass(frozen=True)
class SearchOrigin:
    """Origin of a search with one network or several, from which any process can load it.

    Attributes:
        members: weights of each network.
        fields: field of a batch that each network reads as its source.
    """

    members: tuple[Weights, ...]
    fields: tuple[str, ...]

    def open(self) -> Find:
        """Load the networks."""
        models = []
        for member in self.members:
            found = load_network(member.run, member.checkpoint, "cpu", member.precision)
            assert isinstance(found.model, Transformer)
            models.append(found.model)
        return partial(search_together, models, self.fields)


def _search_there(
    origin: SearchOrigin, threads: int, decoding: DecodingConfig, batch: MicroBatch
) -> Found:
    """Search in a process of the pool."""
    return _opened(origin, threads)(decoding, batch)


def _load_there(origin: SearchOrigin, threads: int, _: int) -> None:
    _opened(origin, threads)


@lru_cache(maxsize=1)
def _opened(origin: SearchOrigin, threads: int) -> Find:
    """Return this process's search; the first call loads it."""
    prepare_process(threads)
    return origin.open()


def prepare_process(threads: int) -> None:
    """Set the number of compute threads, and keep freed memory for later batches."""
    torch.set_num_threads(threads)
    retain_freed_memory()


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
        """Yield a search that runs in this number of processes, as `Searcher` describes.

        The search raises the errors of its processes.

        Raises:
            TranslationError: a process was killed.
            CheckpointError: the weights no longer exist.
        """
        if processes == 1:
            yield self.search
            return
        assert self._origin is not None, "other processes can load only weights of a run"
        threads = max(1, cores() // processes)
        with process_pool(processes, "translated", TranslationError) as pool:
            # Each process loads the weights now, so that errors are raised before translation.
            list(pool.map(partial(_load_there, self._origin, threads), range(processes)))
            search_there = partial(_search_there, self._origin, threads)
            yield lambda decoding, batches: pool.map(partial(search_there, decoding), batches)

    def processes_for(self, sentences: int, bytes_of_longest: int = 0) -> int:
        """Return one process per core if memory suffices, or 1 for few sentences."""
        most = max(1, available_bytes() // max(BYTES_PER_PROCESS, bytes_of_longest))
        return min(most, enough_processes(sentences, SENTENCES_OF_ONE_PROCESS))


def network_searcher(model: Transformer, weights: Weights | None) -> OwnSearcher:
    """Return our own search over one network.

    Args:
        weights: identity with which other processes load the network, or None if they cannot load
            it.
    """
    origin = None if weights is None else SearchOrigin((weights,), (SOURCE,))
    return OwnSearcher(partial(search_together, [model], [SOURCE]), origin)
