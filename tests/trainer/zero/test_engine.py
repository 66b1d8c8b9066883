"""The engine compared with a plain torch loop, and with itself in other shapes."""

import math
from functools import cache

import pytest
import torch
from support.ranks import engine_jobs, poison_jobs
from support.ranks.engine_jobs import (
    MODEL,
    VOCABULARY,
    Shape,
    make_model,
    plain_loop,
)

from model.networks.transformer import Transformer
from trainer.config import EngineConfig
from trainer.zero.settings import deepspeed_config, parameter_groups

STEPS = 4
ALL_SHAPES = [Shape(stage) for stage in range(4)] + [Shape(stage, "bf16") for stage in (1, 2, 3)]
SHAPES = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)]


@cache
def plain_losses(steps: int, clipping: float = 0.0) -> list[float]:
    return plain_loop(make_model(), steps, clipping)[0]


@pytest.fixture(scope="module")
def trained(rank_pools):
    """Return a function of ranks and shape: losses, weights and norms of each rank after a run."""
    return cache(lambda ranks, shape: rank_pools(ranks).run(engine_jobs.train, shape, STEPS))


@pytest.mark.parametrize(("ranks", "stage"), SHAPES)
def test_training_in_each_shape_follows_a_plain_torch_loop(trained, ranks, stage):
    plain, plain_norms = plain_loop(make_model(), STEPS)
    for losses, _, norms in trained(ranks, Shape(stage)):
        assert losses == pytest.approx(plain, rel=1e-6)
        assert norms == pytest.approx(plain_norms, rel=1e-4)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradients_are_clipped_as_by_torch(rank_pools, stage):
    losses, _, norms = rank_pools(2).run(engine_jobs.train, Shape(stage), STEPS, 0.05)[0]
    assert min(norms) > 0.05  # the norm before clipping
    assert losses == pytest.approx(plain_losses(STEPS, clipping=0.05), rel=1e-5)
    assert losses != pytest.approx(plain_losses(STEPS), rel=1e-4)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_is_close_to_fp32_for_any_number_of_ranks(trained, stage):
    two, _, _ = trained(2, Shape(stage, "bf16"))[0]
    three, _, _ = trained(3, Shape(stage, "bf16"))[0]
    assert two == pytest.approx(plain_losses(STEPS), rel=5e-3)
    assert three == pytest.approx(two, rel=2e-3)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_gradients_of_a_dummy_pass_do_not_change_training(rank_pools, trained, stage):
    """With 5 slots on 3 ranks, the last rank runs a dummy; its gradients may even be NaN."""
    plain, _, _ = trained(3, Shape(stage))[0]
    poisoned = rank_pools(3).run(engine_jobs.train_poisoned, Shape(stage), STEPS)[0]
    assert poisoned == plain


@pytest.fixture(scope="module")
def without_the_second_step(rank_pools):
    """Return a function of a shape: results of a run without its second step."""
    job = poison_jobs.train_without_the_second_step
    return cache(lambda shape: rank_pools(2).run(job, shape))


# The detection of a bad loss does not depend on the stage; that of gradients and sums does.
# test_exact_shapes.py has the other cases of stage 1, with exact numerics.
@pytest.mark.parametrize(
    ("shape", "poison"),
    [
        pytest.param(
            shape,
            poison,
            marks=pytest.mark.chaos
            if (poison == "loss" and shape != Shape(2)) or (poison, shape.zero_stage) == ("sum", 1)
            else (),
            id=f"{shape}-{poison}",
        )
        for shape in ALL_SHAPES
        for poison in ("loss", "gradient", "sum")
    ],
)
def test_a_non_finite_step_changes_neither_weights_nor_later_losses(
    rank_pools, without_the_second_step, shape, poison
):
    """All ranks notice it, and the run continues as if the step had not been computed."""
    results = rank_pools(2).run(poison_jobs.train_past_poison, shape, poison)
    for result, expected in zip(results, without_the_second_step(shape), strict=True):
        if poison == "sum":  # no slot shows the overflow of a sum, but the norm does
            assert result["bad_slots"] == []
            assert result["norm"] == math.inf
        else:
            assert result["bad_slots"] == [poison_jobs.BAD_SLOT[poison]]
        assert math.isfinite(result["good_loss"])
        assert result["unchanged"]
        assert result["optimizer_step"] == expected["optimizer_step"] == 3
        assert result["losses"] == expected["losses"]
        assert all(
            torch.equal(weight, expected["weights"][name])
            for name, weight in result["weights"].items()
        )


def test_norms_and_biases_have_no_weight_decay():
    model = Transformer(MODEL, VOCABULARY)
    matrices, vectors = parameter_groups(model, 0.1)
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0
    assert all(p.ndim >= 2 for p in matrices["params"])
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("norm" in names[id(p)] or "bias" in names[id(p)] for p in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_deepspeeds_defaults_are_overridden():
    config = deepspeed_config(EngineConfig(zero_stage=2, precision="bf16"), 0.0, 4, 1000)
    assert config["gradient_clipping"] == 0.0  # DeepSpeed's default is 1.0
    assert config["data_types"]["grad_accum_dtype"] == "fp32"
    assert config["communication_data_type"] == "fp32"
    assert config["gradient_allreduce_op"] == "sum"
    assert config["zero_optimization"]["reduce_bucket_size"] == 1000


def test_bf16_in_stage_0_is_refused():
    with pytest.raises(ValueError, match=r"bf16 and zero_stage is 0.*use zero_stage 1, 2 or 3"):
        EngineConfig(zero_stage=0, precision="bf16")
