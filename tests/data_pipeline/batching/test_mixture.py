"""The mixture, compared with endless streams of pairs, and shares, compared with the formula."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import islice

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from data_pipeline.batching.mixture import (
    SHARDS_PER_WINDOW_TO_ALIGN,
    Mixture,
    ShardSlice,
    shares_of,
)
from data_pipeline.config.pair import PairCorpusConfig, PairDataConfig
from data_pipeline.errors import BatchingError
from data_pipeline.random_keys import SHARD_SHUFFLE, permutation

reproducible = settings(max_examples=30, deadline=None, derandomize=True)

Pair = tuple[int, int, int]  # shard in the manifest, pair in the shard, pass over the corpus


@dataclass(frozen=True)
class Case:
    """Corpora and settings of a mixture."""

    sizes: list[list[int]]  # pairs in each shard of each corpus
    shares: list[float]
    window_shards: int
    seed: int

    def mixture(self) -> Mixture:
        sizes = [np.array(shards, dtype=np.int64) for shards in self.sizes]
        return Mixture(sizes, self.shares, self.window_shards, self.seed)

    def corpus_of(self, shard: int) -> int:
        return int(np.searchsorted(np.cumsum([len(s) for s in self.sizes]), shard, side="right"))

    def stream(self, corpus: int, first_pass: int = 0) -> Iterator[Pair]:
        """Yield the pairs of a corpus endlessly, pass after pass."""
        sizes = self.sizes[corpus]
        first_shard = sum(len(shards) for shards in self.sizes[:corpus])
        number = first_pass
        while True:
            for shard in permutation(len(sizes), SHARD_SHUFFLE, self.seed, corpus, number).tolist():
                for pair in range(sizes[shard]):
                    yield first_shard + shard, pair, number
            number += 1


# The mixture deals the first corpus in whole shards, the others in pairs.
WHOLE_AND_PARTS = Case([[20] * 20, [4, 4, 3]], [0.9, 0.1], window_shards=11, seed=1)
UNEQUAL_SHARDS = Case([[19, 20, 7, 11] * 8, [8], [4] * 9], [0.8, 0.1, 0.1], 12, seed=-1)
SHARDS_OF_ONE_PAIR = Case([[1] * 4] * 3, [1 / 3] * 3, window_shards=1, seed=0)


@st.composite
def cases(draw: st.DrawFn, fewest_corpora: int = 1) -> Case:
    shards = st.lists(st.integers(1, 9), min_size=1, max_size=20)
    sizes = draw(st.lists(shards, min_size=fewest_corpora, max_size=4))
    weights = draw(st.lists(st.integers(1, 20), min_size=len(sizes), max_size=len(sizes)))
    shares = [weight / sum(weights) for weight in weights]
    assume(all(round(share * sum(map(sum, sizes))) for share in shares))
    return Case(sizes, shares, draw(st.integers(1, 12)), draw(st.integers(-(2**63), 2**64)))


def windows_of(mixture: Mixture, epoch: int) -> list[list[ShardSlice]]:
    return [mixture.slices(epoch, window) for window in range(mixture.windows_per_epoch)]


def pairs_of(slices: list[ShardSlice]) -> list[Pair]:
    return [(s.shard, pair, s.pass_number) for s in slices for pair in range(s.start, s.stop)]


@reproducible
@given(cases(), st.sampled_from([0, 1, 1000, 10**6]))
@example(WHOLE_AND_PARTS, 5)
@example(UNEQUAL_SHARDS, 5)
def test_windows_contain_the_streams_of_all_corpora_without_gap_or_overlap(
    case: Case, first_epoch: int
) -> None:
    mixture = case.mixture()
    epochs = range(first_epoch, first_epoch + 3)
    slices = [part for e in epochs for window in windows_of(mixture, e) for part in window]
    flat_sizes = [size for shards in case.sizes for size in shards]
    assert all(0 <= part.start < part.stop <= flat_sizes[part.shard] for part in slices)
    for corpus, per_epoch in enumerate(mixture.pairs_per_epoch):
        first_pass, offset = divmod(first_epoch * per_epoch, sum(case.sizes[corpus]))
        stream = islice(case.stream(corpus, first_pass), offset, offset + 3 * per_epoch)
        mine = [part for part in slices if case.corpus_of(part.shard) == corpus]
        assert pairs_of(mine) == list(stream)


@reproducible
@given(cases())
def test_each_pass_over_a_corpus_has_each_pair_once(case: Case) -> None:
    mixture = case.mixture()
    seen: Counter[Pair] = Counter()
    for epoch in range(4):
        for window in windows_of(mixture, epoch):
            seen.update(pairs_of(window))
    assert set(seen.values()) == {1}
    for corpus, per_epoch in enumerate(mixture.pairs_per_epoch):
        size = sum(case.sizes[corpus])
        passes = Counter(p for shard, _, p in seen if case.corpus_of(shard) == corpus)
        whole, begun = divmod(4 * per_epoch, size)
        assert passes == Counter(dict.fromkeys(range(whole), size) | {whole: begun})


@reproducible
@given(cases())
def test_each_epoch_has_the_corpora_in_their_shares(case: Case) -> None:
    mixture = case.mixture()
    total = sum(map(sum, case.sizes))
    assert mixture.pairs_per_epoch == [round(share * total) for share in case.shares]
    for epoch in (0, 7):
        pairs = Counter(
            case.corpus_of(shard)
            for window in windows_of(mixture, epoch)
            for shard, _, _ in pairs_of(window)
        )
        assert pairs == Counter(dict(enumerate(mixture.pairs_per_epoch)))


@reproducible
@given(cases(fewest_corpora=2))
@example(WHOLE_AND_PARTS)
@example(UNEQUAL_SHARDS)
def test_the_first_windows_of_an_epoch_have_the_corpora_in_their_shares(case: Case) -> None:
    """Shares are exact to within a pair, or within a shard for a corpus dealt in shards."""
    mixture = case.mixture()
    windows = mixture.windows_per_epoch
    for corpus, per_epoch in enumerate(mixture.pairs_per_epoch):
        largest = max(case.sizes[corpus])
        whole = per_epoch >= SHARDS_PER_WINDOW_TO_ALIGN * windows * largest
        taken = 0
        for window, slices in enumerate(windows_of(mixture, epoch=3)):
            mine = [part for part in slices if case.corpus_of(part.shard) == corpus]
            part = len(pairs_of(mine))
            taken += part
            missing = (window + 1) * per_epoch / windows - taken
            assert -1e-9 < missing < (largest if whole else 1)
            if whole:
                assert abs(part / (per_epoch / windows) - 1) < 1 / SHARDS_PER_WINDOW_TO_ALIGN


@reproducible
@given(cases())
@example(SHARDS_OF_ONE_PAIR)
def test_no_window_is_empty(case: Case) -> None:
    mixture = case.mixture()
    assert mixture.windows_per_epoch >= 1
    assert all(windows_of(mixture, epoch=2))


@reproducible
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 12))
def test_a_single_corpus_is_dealt_in_whole_shards_once_per_epoch(
    sizes: list[int], window_shards: int
) -> None:
    mixture = Case([sizes], [1.0], window_shards, seed=3).mixture()
    assert mixture.windows_per_epoch == -(-len(sizes) // window_shards)
    for epoch in (0, 5):
        windows = windows_of(mixture, epoch)
        slices = [part for window in windows for part in window]
        assert sorted(map(astuple, slices)) == [(n, 0, size, epoch) for n, size in enumerate(sizes)]
        counts = [len(window) for window in windows]
        assert max(counts) <= window_shards
        assert max(counts) - min(counts) <= 1


def test_large_corpora_are_dealt_in_whole_shards() -> None:
    case = Case([[10] * 90, [10] * 10], [0.9, 0.1], window_shards=10, seed=0)
    windows = windows_of(case.mixture(), epoch=4)
    large = [[part for part in window if part.shard < 90] for window in windows]
    assert [len(parts) for parts in large] == [9] * 10
    assert all(part.stop - part.start == 10 for parts in large for part in parts)


@reproducible
@given(cases(), st.integers(0, 10**9), st.data())
def test_slices_do_not_depend_on_earlier_requests(
    case: Case, epoch: int, data: st.DataObject
) -> None:
    walked = case.mixture()
    window = st.integers(0, walked.windows_per_epoch - 1)
    for _ in range(8):
        where = data.draw(st.sampled_from([0, 1, epoch, epoch + 1])), data.draw(window)
        assert walked.slices(*where) == case.mixture().slices(*where)


def test_every_pass_and_corpus_has_a_different_order() -> None:
    mixture = Case([[1] * 30, [1] * 30], [0.5, 0.5], window_shards=60, seed=0).mixture()
    orders = [
        tuple(part.shard % 30 for part in mixture.slices(epoch, 0) if part.shard // 30 == corpus)
        for epoch in (0, 1)
        for corpus in (0, 1)
    ]
    assert len(set(orders)) == 4


def test_slices_of_a_window_equal_golden_numbers() -> None:
    """All released datasets and checkpoints depend on these numbers. Never change them."""
    one = Case([[5] * 8], [1.0], window_shards=3, seed=1).mixture()
    shards = [[part.shard for part in window] for window in windows_of(one, epoch=2)]
    assert shards == [[2, 7], [3, 5, 6], [4, 0, 1]]
    two = WHOLE_AND_PARTS.mixture()
    assert two.pairs_per_epoch == [370, 41]
    assert two.windows_per_epoch == 3
    assert [astuple(part) for part in two.slices(5, 1)] == [
        *[(12, 0, 20, 4), (9, 0, 20, 4), (13, 0, 20, 5), (12, 0, 20, 5), (0, 0, 20, 5)],
        *[(18, 0, 20, 5), (21, 2, 4, 19), (22, 0, 3, 20), (21, 0, 4, 20), (20, 0, 4, 20)],
        (21, 0, 1, 21),
    ]


def data_config(weights: list[float] | list[None], temperature: float = 1.0) -> PairDataConfig:
    corpora = [PairCorpusConfig(source="a", target="b", weight=weight) for weight in weights]
    return PairDataConfig(
        source_language="xx",
        target_language="yy",
        dataset="d",
        train=tuple(corpora),
        validation=PairCorpusConfig(source="c", target="d"),
        temperature=temperature,
    )


pairs_lists = st.lists(st.integers(1, 10**10), min_size=1, max_size=6)


@reproducible
@given(pairs_lists, st.floats(1, 100))
def test_shares_by_temperature_equal_the_formula(pairs: list[int], temperature: float) -> None:
    """Arivazhagan et al. 2019: p_c to the power 1/T, where p_c is a corpus's part of all pairs."""
    parts = [(count / sum(pairs)) ** (1 / temperature) for count in pairs]
    expected = [part / sum(parts) for part in parts]
    shares = shares_of(data_config([None] * len(pairs), temperature), pairs)
    assert shares == pytest.approx(expected)
    assert sum(shares) == pytest.approx(1)


@reproducible
@given(pairs_lists)
def test_without_weights_an_epoch_is_a_pass_over_every_corpus(pairs: list[int]) -> None:
    shares = shares_of(data_config([None] * len(pairs)), pairs)
    assert Case([[count] for count in pairs], shares, 8, 0).mixture().pairs_per_epoch == pairs


@reproducible
@given(st.lists(st.floats(0.01, 1000), min_size=1, max_size=6))
def test_weights_set_the_shares_whatever_the_sizes_of_the_corpora(weights: list[float]) -> None:
    sizes = list(range(1, len(weights) + 1))
    expected = [weight / sum(weights) for weight in weights]
    assert shares_of(data_config(weights), sizes) == pytest.approx(expected)


def test_a_higher_temperature_makes_the_shares_more_equal() -> None:
    shares = [shares_of(data_config([None] * 2, t), [9900, 100]) for t in (1, 2, 5, 1e6)]
    assert [round(share, 3) for _, share in shares] == [0.01, 0.091, 0.285, 0.5]


def test_a_corpus_without_a_pair_in_an_epoch_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        BatchingError, match=r"corpus 1 .* share 1\.00e-05 of the 2,000 .* larger w"
    ):
        Case([[1000], [1000]], [1 - 1e-5, 1e-5], 8, 0).mixture()


@pytest.mark.parametrize("window", [-1, 3, 10**9])
def test_windows_that_do_not_exist_are_refused(window: int) -> None:
    mixture = Case([[5] * 9], [1.0], window_shards=4, seed=0).mixture()
    with pytest.raises(BatchingError, match=rf"Window {window} .* an epoch has 3 windows"):
        mixture.slices(0, window)
