"""The mixture: which parts of which shards each window of a virtual epoch consists of.

Each corpus is an endless stream of passes; a pass is every pair of the corpus once, shard after
shard in an order of its own. A virtual epoch of N pairs takes the next round(share × N) pairs of
each corpus's stream, and each window its even part of these.

    (epoch, window) ──shares──▶ a range of each corpus's stream ──permutation──▶ slices of shards

So a window's place in every stream follows from its number in closed form, and planning costs the
same at any step. One corpus alone is the usual case: an epoch is then a pass.
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

# Shards per window from which on a corpus is dealt in whole shards, so that few shards are read for
# two windows. Its part of a window is then off by less than a shard, so by a quarter at most.
SHARDS_FOR_WHOLE_DEALING = 4

PASSES_KEPT = 2  # shuffled passes; few windows span more, so few shuffle shards anew


@dataclass(frozen=True)
class ShardSlice:
    """Consecutive pairs of one shard, at least one."""

    shard: int  # number in the manifest
    start: int  # first pair, counted within the shard
    stop: int
    pass_number: int  # passes over the corpus before this one


class _CorpusStream:
    """One corpus's endless stream, whose pairs and shards are numbered on from pass to pass."""

    def __init__(self, index: int, first_shard: int, shard_pairs: Int64Array, seed: int) -> None:
        self.shards = len(shard_pairs)
        self.pairs = int(shard_pairs.sum())
        self.largest_shard = int(shard_pairs.max())
        self._words = (SHARD_SHUFFLE, seed, index)
        self._first_shard = first_shard
        self._shard_pairs = shard_pairs
        self._pass = lru_cache(PASSES_KEPT)(self._shuffle)

    def _shuffle(self, pass_number: int) -> tuple[Int64Array, Int64Array]:
        """The shards in the order of a pass; the pass's pairs before each of them, and in all."""
        order = permutation(self.shards, *self._words, pass_number)
        return order, np.concatenate(([0], np.cumsum(self._shard_pairs[order])))

    def shard_of(self, pair: int) -> int:
        """The shard that holds a pair; both are numbered in the stream."""
        pass_number, offset = divmod(pair, self.pairs)
        _, bounds = self._pass(pass_number)
        return pass_number * self.shards + int(np.searchsorted(bounds, offset, side="right")) - 1

    def pairs_before(self, shard: int) -> int:
        """The pairs of the stream before a shard, which is numbered in the stream."""
        pass_number, position = divmod(shard, self.shards)
        _, bounds = self._pass(pass_number)
        return pass_number * self.pairs + int(bounds[position])

    def slices(self, start: int, stop: int) -> Iterator[ShardSlice]:
        """The slices of shards that hold the pairs `start` to `stop` of the stream."""
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
    """The windows of all virtual epochs, from the sizes of the shards and the corpora's shares."""

    def __init__(
        self,
        shard_pairs: Sequence[Int64Array],
        shares: Sequence[float],
        window_shards: int,
        seed: int,
    ) -> None:
        """Plans the windows of an epoch.

        Args:
            shard_pairs: for each corpus the pairs of its shards, of which none is empty.
            shares: each corpus's share of an epoch; they sum to 1.

        Raises:
            BatchingError: a corpus gets not one pair of an epoch.
        """
        epoch_pairs = sum(int(pairs.sum()) for pairs in shard_pairs)
        self.pairs_per_epoch = [round(share * epoch_pairs) for share in shares]  # by corpus
        for index, share in enumerate(shares):
            if not self.pairs_per_epoch[index]:
                raise BatchingError(
                    f"Training corpus {index} has the share {share:.2e} of "
                    f"{counted(epoch_pairs, 'pair')}, "
                    "which is less than one pair an epoch. Give it a larger weight, or leave it "
                    "out."
                )
        firsts = np.cumsum([0, *map(len, shard_pairs)]).tolist()
        self._streams = [
            _CorpusStream(index, firsts[index], pairs, seed)
            for index, pairs in enumerate(shard_pairs)
        ]
        # Length of an epoch in shards' worth of pairs, rounded up for each corpus.
        shards = sum(
            -(-pairs * stream.shards // stream.pairs)
            for stream, pairs in zip(self._streams, self.pairs_per_epoch, strict=True)
        )
        # Shards of few pairs could make more windows than any corpus has pairs for.
        self.windows_per_epoch = min(-(-shards // window_shards), max(self.pairs_per_epoch))

    def slices(self, epoch: int, window: int) -> list[ShardSlice]:
        """The parts of shards that make up a window, in the order in which its pairs are numbered.

        There is at least one.

        Raises:
            BatchingError: the epoch has no such window.
        """
        if not 0 <= window < self.windows_per_epoch:
            raise BatchingError(
                f"Window {window} was asked for, but an epoch has "
                f"{counted(self.windows_per_epoch, 'window')} "
                "(batching.window_shards). The cursor belongs to another dataset or other batching "
                "settings: use those of the run."
            )
        return [
            part
            for index, stream in enumerate(self._streams)
            for part in stream.slices(
                self._bound(index, epoch, window), self._bound(index, epoch, window + 1)
            )
        ]

    def _bound(self, index: int, epoch: int, window: int) -> int:
        """The pairs of a corpus's stream before a window."""
        stream, windows = self._streams[index], self.windows_per_epoch
        if len(self._streams) == 1:
            return stream.pairs_before(epoch * stream.shards + window * stream.shards // windows)
        pairs = self.pairs_per_epoch[index]
        bound = epoch * pairs + window * pairs // windows
        whole = pairs >= SHARDS_FOR_WHOLE_DEALING * windows * stream.largest_shard
        if whole and 0 < window < windows:
            bound = stream.pairs_before(stream.shard_of(bound))
        return bound


def shares_of(data: DataConfig, pairs: Sequence[int]) -> list[float]:
    """Each corpus's share of a virtual epoch: by weights, or by size and temperature.

    Args:
        pairs: pairs of each corpus, in the order of the recipe's `data.train`.
    """
    weights = [corpus.weight for corpus in data.train]
    if None in weights:
        sizes = [count ** (1 / data.temperature) for count in pairs]
    else:
        sizes = [float(weight) for weight in weights if weight is not None]
    return [size / sum(sizes) for size in sizes]
