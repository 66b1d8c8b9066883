"""The calculated bytes of a rank's state, compared with those that DeepSpeed holds."""

import pytest
from support.ranks.engine_jobs import Shape
from support.ranks.state_jobs import bytes_held

from trainer.config import EngineConfig
from trainer.memory import state_size as calculated
from trainer.memory.state_size import checkpoint_bytes, state_size
from trainer.zero import gradient_buckets, settings

SHAPES = [Shape(stage) for stage in range(4)] + [Shape(stage, "bf16") for stage in (1, 2, 3)]
# Relative tolerance of sizes, because ZeRO pads parts to equal sizes on all ranks: it adds some
# elements for each parameter or group.
PADDING = 0.02


@pytest.mark.parametrize("frozen", [(), ("*embedding*",)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_calculated_state_size_is_that_of_deepspeed(rank_pools, shape, frozen):
    ranks = 2
    engine = EngineConfig(zero_stage=shape.zero_stage, precision=shape.precision)
    held = rank_pools(ranks).run(bytes_held, shape, frozen)
    parameters, not_trained = held[0]["parameters"], held[0]["not trained"]
    form = {"moments": 2, "averaged": False, "frozen": not_trained}
    size = state_size(parameters, engine, ranks=ranks, **form)
    assert bool(not_trained) == bool(frozen)
    for of_rank in held:
        for part in ("weights", "master", "moments", "frozen"):
            assert getattr(size, part) == pytest.approx(of_rank[part], rel=PADDING), part
    whole = sum(of_rank["checkpoint_copy"] for of_rank in held)
    assert whole == checkpoint_bytes(parameters, **form)
    assert size.checkpoint_copy == pytest.approx(whole / ranks, rel=PADDING)


def test_a_higher_stage_needs_less_memory_on_more_ranks():
    def on_device(stage, ranks, precision="fp32"):
        engine = EngineConfig(zero_stage=stage, precision=precision)
        return state_size(10**6, engine, moments=2, averaged=True, ranks=ranks).on_device

    assert on_device(0, 8) < on_device(0, 1)  # in stage 0, only the average is partitioned
    for stage in (1, 2, 3):
        assert on_device(stage, 8) < on_device(stage, 2) < on_device(stage, 1)
    assert on_device(3, 8) < on_device(2, 8) < on_device(1, 8)
    assert on_device(3, 8, "bf16") < on_device(3, 8)


def test_a_moving_average_adds_to_the_size_of_a_checkpoint():
    assert checkpoint_bytes(10, moments=2, averaged=True) == 160
    assert checkpoint_bytes(10, moments=2, averaged=False) == 120


def test_the_assumed_bucket_sizes_are_those_of_the_engine():
    assert calculated.LARGEST_BUCKET == settings.LARGEST_BUCKET
    assert gradient_buckets.CAPACITY["cuda"] == calculated.CAPACITY
    engine = EngineConfig(zero_stage=1, precision="bf16")  # bf16 gradients, and fp32 sums
    assert state_size(1000, engine, moments=2, averaged=False, ranks=2).bucket == (2 + 4) * 1000
