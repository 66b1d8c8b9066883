"""Translation language modelling with separate sides for some pairs: golden numbers."""

import numpy as np
import pytest
from support.tasks import pair_masked_values

from cluster.recipe import Recipe
from data_pipeline.arrays import FieldArrays, flattened
from data_pipeline.config.text import TEXT
from data_pipeline.random_keys import SINGLE_SIDES, splitmix64, stream_state, uniform
from data_pipeline.tasks.masked_lm import TLM
from data_pipeline.tasks.masking import SEGMENTS

SOURCES, TARGETS = [3, 4, 2, 6, 5, 3], [4, 3, 5, 2, 5, 6]  # tokens of each side


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    values = pair_masked_values(tmp_path_factory.mktemp("unread"))
    values["seed"] = 3
    values["batching"] |= {"context_length": 112, "alone": 0.5}
    return Recipe.of(values).data_settings


def pairs(sources=SOURCES, targets=TARGETS):
    segments = flattened([[0] * s + [1] * t for s, t in zip(sources, targets, strict=True)])
    return {TEXT: FieldArrays(np.ones_like(segments.ids), segments.lengths), SEGMENTS: segments}


def parts_of(plan):
    """Return the parts of each pair, as (start, stop)."""
    parts = {}
    starts, stops = plan.cuts.starts.tolist(), plan.cuts.stops.tolist()
    for pair, start, stop in zip(plan.order.tolist(), starts, stops, strict=True):
        parts.setdefault(pair, []).append((start, stop))
    return {pair: sorted(found) for pair, found in parts.items()}


def test_the_plan_of_tlm_equals_golden_numbers(settings):
    """Released checkpoints depend on these numbers. Never change them."""
    plan = TLM.plan(pairs(), settings, epoch=1, window=2)
    assert plan.order.tolist() == [5, 3, 0, 2, 4, 4, 1, 1, 2]
    assert plan.cuts.starts.tolist() == [0, 0, 0, 2, 0, 5, 0, 4, 0]
    assert plan.cuts.stops.tolist() == [9, 8, 7, 7, 5, 10, 4, 7, 2]
    assert plan.bounds.tolist() == [0, 9]


@pytest.mark.parametrize(("epoch", "window"), [(0, 0), (1, 0), (2, 0), (0, 1), (5, 3)])
def test_epoch_and_window_decide_which_pairs_are_separated(settings, epoch, window):
    many = 40
    fields = pairs([3] * many, [4] * many)
    found = parts_of(TLM.plan(fields, settings, epoch, window))
    drawn = uniform(splitmix64(stream_state(SINGLE_SIDES, settings.seed, epoch, window), many))
    alone = {pair for pair, share in enumerate(drawn) if share < settings.batching.alone}
    assert {pair for pair, parts in found.items() if len(parts) == 2} == alone
    assert 0 < len(alone) < many


def test_each_epoch_separates_different_pairs(settings):
    fields = pairs([3] * 40, [4] * 40)
    alone = [
        frozenset(pair for pair, parts in found.items() if len(parts) == 2)
        for found in (parts_of(TLM.plan(fields, settings, epoch, 0)) for epoch in range(4))
    ]
    assert len(set(alone)) == 4
