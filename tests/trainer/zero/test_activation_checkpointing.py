"""Recomputing activations changes only the memory that training takes."""

from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from support.ranks import engine_jobs
from support.ranks.engine_jobs import MODEL, VOCABULARY, Shape

from model.losses.loss import CrossEntropy
from model.networks.transformer import Transformer


@pytest.mark.parametrize(
    "shape",
    [Shape(0), Shape(3), pytest.param(Shape(3, "bf16"), marks=pytest.mark.chaos)],
    ids=str,
)
def test_training_with_recomputed_activations_has_the_same_bits(rank_pools, shape):
    """With dropout and two ranks; the second rank ends each step with a dummy."""
    assert MODEL.dropout > 0
    anew = replace(shape, activation_checkpointing=True)
    job = engine_jobs.train_recording_gradients
    for kept, computed in zip(
        *(rank_pools(2).run(job, case, 1) for case in (shape, anew)), strict=True
    ):
        assert computed.pop("layers_run") == 2 * kept.pop("layers_run") > 0
        assert computed.pop("activation_checkpointing") > kept.pop("activation_checkpointing")
        assert bool(kept["partitioned"]) == (shape.zero_stage == 3)
        assert computed == kept


def peak_bytes(model: Transformer, ids: torch.Tensor) -> int:
    """Return the peak bytes that torch held at once in a forward and backward pass."""
    with torch.profiler.profile(profile_memory=True) as profile:
        model(ids, ids, ids, CrossEntropy(0.1)).smoothed.backward()
    model.zero_grad()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def test_only_one_layer_of_activations_is_held_at_a_time():
    deep = {"encoder_layers": 6, "decoder_layers": 6, "width": 64, "feed_forward_width": 256}
    model = Transformer(MODEL.model_copy(update=deep), VOCABULARY)
    ids = torch.randint(4, 37, (16, 32))
    kept = peak_bytes(model, ids)
    model.checkpoint_activations(True)
    assert peak_bytes(model, ids) < 0.4 * kept
