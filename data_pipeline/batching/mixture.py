"""Assignment of slices of shards to the windows of virtual epochs.

Each corpus is an endless stream of passes. A pass yields every pair of the corpus once, shard by
shard; each pass has a different order of shards. A virtual epoch of N pairs takes the next
round(share × N) pairs of each corpus's stream, divided evenly among the windows of the epoch.

    (epoch, window) ──shares──▶ a range of each corpus's stream ──permutation──▶ slices of shards

A closed formula gives the range of any window, so planning takes the same time at any step. With a
single corpus, the usual case, an epoch is one pass over the corpus.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data_pipeline.arrays import Int64Array
from data_pipeline.config.data import DataConfig
from data_pipeline.errors import BatchingError
from data_pipeline.random_keys import SHARD_SHUFFLE, permutation
from foundation.wording import counted

# If a corpus has at least this many shards per window, its windows begin at shard boundaries, so
# that fewer shards are read for two windows. The corpus then has up to one shard more or less than
# its exact share in a window, a difference of at most a quarter.
SHARDS_PER_WINDOW_TO_ALIGN = 4

PASSES_KEPT = 2  # passes whose order of shards is cached; few windows span more passes


@dataclass(frozen=True)
class ShardSlice:
    """Consecutive pairs of one shard, at least one."""

    shard: int  # index among the manifest's shards
    start: int  # first pair, counted within the shard
    stop: int
    pass_number: int  # number of earlier passes over the corpus


class _CorpusStream:
    """Endless stream of one corpus, whose pairs and shards are numbered across all passes."""

    def __init__(self, index: int, first_shard: int, shard_pairs: Int64Array, seed: int) -> None:
        self.shards = len(shard_pairs)
        self.pairs = int(shard_pairs.sum())
        self.largest_shard = int(shard_pairs.max())
        self._words = (SHARD_SHUFFLE, seed, index)
        self._first_shard = first_shard
        self._shard_pairs = shard_pairs
        self._pass = lru_cache(PASSES_KEPT)(self._shuffle)

    def _shuffle(self, pass_number: int) -> tuple[Int64Array, Int64Array]:
        """Return the order of shards in a pass, and the number of pairs before each shard.

        Returns:
            The order, [shards], and the numbers of pairs, [shards + 1], which end with the total.
        """
        order = permutation(self.shards, *self._words, pass_number)
        return order, np.concatenate(([0], np.cumsum(self._shard_pairs[order])))

    def shard_of(self, pair: int) -> int:
        """Return the stream-wide number of the shard that contains the stream-wide pair `pair`."""
        pass_number, offset = divmod(pair, self.pairs)
        _, bounds = self._pass(pass_number)
        return pass_number * self.shards + int(np.searchsorted(bounds, offset, side="right")) - 1

    def pairs_before(self, shard: int) -> int:
        """Return the number of pairs before the shard with the stream-wide number `shard`."""
        pass_number, position = divmod(shard, self.shards)
        _, bounds = self._pass(pass_number)
        return pass_number * self.pairs + int(bounds[position])

    def slices(self, start: int, stop: int) -> Iterator[ShardSlice]:
        """Yield the slices of shards with the stream-wide pairs `start` to `stop` (exclusive)."""
        if start == stop:
            return
        for shard in range(self.shard_of(start), self.shard_of(stop - 1) + 1):
            pass_number, position = divmod(shard, self.shards)
            order, bounds = self._pass(pass_number)
            begin = pass_number * self.pairs + int(bounds[position])
            end = pass_number * self.pairs + int(bounds[position + 1])
            yield ShardSlice(
                self._first_shard + int(order[position]),
                max(start, begin) - begin,
                min(stop, end) - begin,
                pass_number,
            )


class Mixture:
    """Windows of all virtual epochs, computed from shard sizes and the shares of corpora."""

    def __init__(
        self,
        shard_pairs: Sequence[Int64Array],
        shares: Sequence[float],
        window_shards: int,
        seed: int,
    ) -> None:
        """Compute how many pairs of each corpus and how many windows an epoch has.

        Args:
            shard_pairs: number of pairs of each shard, by corpus; no shard is empty.
            shares: each corpus's share of an epoch; they sum to 1.

        Raises:
            BatchingError: a corpus's share is less than one pair per epoch.
        """
        epoch_pairs = sum(int(pairs.sum()) for pairs in shard_pairs)
        self.pairs_per_epoch = [round(share * epoch_pairs) for share in shares]  # by corpus
        for index, share in enumerate(shares):
            if not self.pairs_per_epoch[index]:
                raise BatchingError(
                    f"Training corpus {index} has the share {share:.2e} of the "
                    f"{counted(epoch_pairs, 'pair')} of an epoch, "
                    "which is less than one pair. Give the corpus a larger weight, or remove it."
                )
        firsts = np.cumsum([0, *map(len, shard_pairs)]).tolist()
        self._streams = [
            _CorpusStream(index, firsts[index], pairs, seed)
            for index, pairs in enumerate(shard_pairs)
        ]
        # Number of shards of average size in an epoch, rounded up for each corpus.
        shards = sum(
            -(-pairs * stream.shards // stream.pairs)
            for stream, pairs in zip(self._streams, self.pairs_per_epoch, strict=True)
        )
        # An epoch has no more windows than its largest corpus has pairs, so that every window
        # contains at least one pair.
        self.windows_per_epoch = min(-(-shards // window_shards), max(self.pairs_per_epoch))

    def slices(self, epoch: int, window: int) -> list[ShardSlice]:
        """Return the slices of shards in a window, which has at least one slice.

        The pairs of a window are numbered in the order of these slices.

        Raises:
            BatchingError: the epoch has no such window.
        """
        if not 0 <= window < self.windows_per_epoch:
            raise BatchingError(
                f"Window {window} was requested, but an epoch has "
                f"{counted(self.windows_per_epoch, 'window')} "
                "(batching.window_shards). The cursor belongs to another dataset or to other "
                "batching settings: use the dataset and the settings of the run."
            )
        return [
            part
            for index, stream in enumerate(self._streams)
            for part in stream.slices(
                self._bound(index, epoch, window), self._bound(index, epoch, window + 1)
            )
        ]

    def _bound(self, index: int, epoch: int, window: int) -> int:
        """Return the number of pairs in the stream of corpus `index` that precede a window."""
        stream, windows = self._streams[index], self.windows_per_epoch
        if len(self._streams) == 1:
            return stream.pairs_before(epoch * stream.shards + window * stream.shards // windows)
        pairs = self.pairs_per_epoch[index]
        bound = epoch * pairs + window * pairs // windows
        whole = pairs >= SHARDS_PER_WINDOW_TO_ALIGN * windows * stream.largest_shard
        if whole and 0 < window < windows:
            bound = stream.pairs_before(stream.shard_of(bound))
        return bound


def shares_of(data: DataConfig, pairs: Sequence[int]) -> list[float]:
    """Return each corpus's share of a virtual epoch, from weights or from sizes and temperature.

    Args:
        pairs: number of pairs of each corpus, in the order of the recipe's `data.train`.
    """
    weights = [corpus.weight for corpus in data.train]
    if None in weights:
        sizes = [count ** (1 / data.temperature) for count in pairs]
    else:
        sizes = [float(weight) for weight in weights if weight is not None]
    return [size / sum(sizes) for size in sizes]
