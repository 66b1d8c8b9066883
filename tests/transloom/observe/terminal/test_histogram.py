"""Histograms of lengths in a terminal."""

import io
import random
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from transloom.observe.terminal.histogram import BAR_WIDTH, MAX_BINS, bins_of, histogram, quantile


def random_lengths(seed):
    rng = random.Random(seed)
    centre = rng.choice([2, 9, 30, 400, 20_000])
    tail = [rng.randrange(1, 40 * centre) for _ in range(rng.randrange(3))]
    return [1 + int(rng.gammavariate(4, centre / 4)) for _ in range(rng.randrange(1, 2000))] + tail


def drawn(counts, width):
    output = io.StringIO()
    Console(file=output, width=width).print(histogram(counts))
    return output.getvalue().splitlines()


@pytest.mark.parametrize("seed", range(40))
def test_quantiles_are_those_of_numpy(seed):
    lengths = random_lengths(seed)
    for share in (0.5, 0.99):
        expected = np.quantile(lengths, share, method="inverted_cdf")
        assert quantile(np.bincount(lengths), share) == expected


@pytest.mark.parametrize("seed", range(40))
def test_every_length_is_in_exactly_one_bin(seed):
    lengths = random_lengths(seed)
    bins = bins_of(np.bincount(lengths))
    assert len(bins) <= MAX_BINS
    assert bins[0].first <= min(lengths)
    assert bins[-1].last == max(lengths)
    for bin_, following in pairwise(bins):
        assert bin_.last + 1 == following.first
    for bin_ in bins:
        assert bin_.count == sum(bin_.first <= length <= bin_.last for length in lengths)
    # A long tail is one bin; all bins before have equal widths.
    assert len({bin_.last - bin_.first for bin_ in bins[:-1]}) <= 1
    if len(bins) == MAX_BINS:
        assert bins[-1].first > quantile(np.bincount(lengths), 0.99)


def test_a_single_length_gives_a_single_bin():
    (bin_,) = bins_of([0, 0, 0, 7])
    assert (bin_.first, bin_.last, bin_.count) == (3, 3, 7)


def test_bars_are_proportional_and_fit_a_narrow_terminal():
    lines = drawn([0, 1, 8000, 4000], width=80)
    assert [line.count("█") for line in lines] == [0, BAR_WIDTH, BAR_WIDTH // 2]
    assert "▏" in lines[0]  # 1 of 12,001 sequences is visible
    assert "8,000" in lines[1]
    assert all(len(line) <= 80 for line in lines)
    assert all(len(line) <= 50 for line in drawn([0, 1, 8000, 4000], width=50))
