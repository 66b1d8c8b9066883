"""Detect loss spikes: none in real curves, and each inserted spike once."""

import gzip
import json
import math
import random
from pathlib import Path

import pytest

from cluster.notify.loss_spikes import BEFORE_AT_LEAST, RECENT, LossSpikeDetector

RECORDS = sorted((Path(__file__).parents[3] / "benchmarks/multi30k/records").glob("*.jsonl.gz"))


def spikes_in(losses):
    """Return the index at which the detector reports each spike."""
    detector = LossSpikeDetector()
    return [index for index, loss in enumerate(losses) if detector.add(loss)]


@pytest.fixture(scope="module", params=RECORDS, ids=lambda path: path.name)
def curve(request):
    with gzip.open(request.param, "rt") as file:
        lines = [json.loads(line) for line in file]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_a_real_curve_has_no_spike(curve):
    assert len(curve) > 1000
    assert spikes_in(curve) == []


def test_a_spike_in_a_real_curve_is_found_once(curve):
    """The loss doubles and falls back within 50 steps, as after a bad update."""
    for start in range(200, len(curve) - 60, 400):
        spiky = curve[start - 150 : start + 60]
        for after in range(50):
            spiky[150 + after] *= 1 + math.exp(-after / 15)
        (found,) = spikes_in(spiky)
        assert 150 < found < 150 + 2 * RECENT


def test_noise_and_short_bad_batches_are_no_spikes():
    for seed in range(20):
        draw = random.Random(seed)
        losses = [8 * math.exp(-n / 200) + 2 + draw.gauss(0, 0.1) for n in range(1000)]
        for bad in range(100, 1000, 90):
            losses[bad] *= 3
            losses[bad + 1] *= 3
        assert spikes_in(losses) == []


def test_a_loss_that_stays_high_is_one_spike_and_a_second_rise_is_another():
    draw = random.Random(1)
    losses = [level + draw.gauss(0, 0.05) for level in (2, 4, 7) for _ in range(300)]
    first, second = spikes_in(losses)
    assert 300 < first < 300 + RECENT
    assert 600 < second < 600 + RECENT


def test_no_spike_is_reported_before_there_are_enough_steps_to_compare():
    assert spikes_in([2.0] * (BEFORE_AT_LEAST - 1) + [9.0] * RECENT) == []
    assert spikes_in([2.0] * (BEFORE_AT_LEAST + RECENT) + [9.0] * RECENT) != []


def test_constant_and_non_finite_losses_are_no_spikes():
    assert spikes_in([0.0] * 300) == []
    assert spikes_in([math.nan, math.inf, 1.0] * 300) == []


def test_after_a_reset_steps_are_not_compared_with_earlier_ones():
    detector = LossSpikeDetector()
    assert not any(detector.add(1.0) for _ in range(200))
    detector.reset()
    assert not any(detector.add(9.0) for _ in range(200))
