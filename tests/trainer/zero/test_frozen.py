"""Frozen parameters do not change, and are constants to the trained ones."""

import math
from functools import cache

import pytest
import torch
from support.ranks import engine_jobs, frozen_jobs, shape_jobs
from support.ranks.engine_jobs import (
    Shape,
    committed,
    make_model,
    plain_loop,
)
from support.ranks.shape_jobs import Network

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.fragment import MASTER
from run_store.checkpoints.reader import CheckpointReader
from trainer.errors import EngineError
from trainer.tasks.frozen import frozen_names
from trainer.zero.adamw import AdamWKind

STEPS = 3
CLIPPING = 0.1
# Patterns of the shared embedding, the encoder's first self-attention, and all biases of the
# decoder.
FROZEN = ("target_embedding.weight", "encoder.layers.0.self_attention*", "decoder.*.bias")
NAMES = tuple(dict(make_model().named_parameters()))
SHAPES = [(1, Shape(0)), *((2, Shape(stage)) for stage in range(4))]
ROUNDED = [(2, Shape(stage, "bf16")) for stage in (1, 2, 3)]


@cache
def with_constants() -> tuple[list[float], list[float]]:
    """Return losses and norms without DeepSpeed; frozen parameters are constants to autograd."""
    model = make_model()
    frozen = frozen_names(NAMES, FROZEN)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return plain_loop(model, STEPS, CLIPPING)


@pytest.mark.parametrize(("ranks", "shape"), [*SHAPES, *ROUNDED], ids=str)
def test_trained_parameters_follow_a_plain_loop_with_constants(rank_pools, ranks, shape):
    """Only trained parameters count for norm and clipping."""
    frozen = frozen_names(NAMES, FROZEN)
    initial = dict(make_model().named_parameters())
    losses, norms = with_constants()
    assert min(norms) > CLIPPING
    tolerance = 1e-5 if shape.precision == "fp32" else 1e-2
    for found in rank_pools(ranks).run(frozen_jobs.train, shape, FROZEN, STEPS, CLIPPING):
        assert found["losses"] == pytest.approx(losses, rel=tolerance)
        assert found["norms"] == pytest.approx(norms, rel=1e-4 if tolerance < 1e-4 else 3e-2)
        for name in NAMES:
            rounded = initial[name].bfloat16() if shape.precision == "bf16" else initial[name]
            for weights in (found["weights"], found["average"]):
                stays = torch.equal(weights[name], rounded.float())
                assert stays == (name in frozen), name
        assert found["told"] == ("17 of 33 parameters are frozen, 2,734 of 8,808 weights")


@pytest.mark.parametrize(
    ("ranks", "before", "after"),
    [
        (2, (0, "fp32"), (3, "fp32")),
        (1, (3, "fp32"), (2, "fp32")),
        (2, (1, "bf16"), (3, "bf16")),
    ],
    ids=str,
)
def test_a_frozen_network_continues_in_another_shape(rank_pools, tmp_path, ranks, before, after):
    """Checkpoints have frozen weights in fp32, without moments; exact runs keep all bits."""
    first, second = (Shape(*shape, numerics="exact") for shape in (before, after))
    straight = rank_pools(1).run(frozen_jobs.train, second, FROZEN, STEPS + 2, 0.0)[0]
    results = rank_pools(ranks).run(
        engine_jobs.train_and_save, first, STEPS, tmp_path, "adamw", FROZEN
    )
    path = committed(tmp_path, [saved for _, saved in results])
    reader = CheckpointReader(Checkpoint(path))
    frozen = frozen_names(NAMES, FROZEN)
    initial = dict(make_model().named_parameters())
    for name in NAMES:
        kinds = {kind for kind, parameter in reader.names if parameter == name}
        assert kinds == ({MASTER} if name in frozen else {MASTER, *AdamWKind.moments})
        stays = torch.equal(reader.whole(MASTER, name), initial[name].flatten())
        assert stays == (name in frozen), name
    resumed = rank_pools(3 - ranks).run(
        engine_jobs.resume, second, path, STEPS + 2, "adamw", FROZEN
    )
    for losses, weights, as_saved in resumed:
        assert as_saved
        assert losses == straight["losses"][STEPS:]
        assert all(torch.equal(weights[name], straight["weights"][name]) for name in NAMES)


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_exact_numerics_have_the_same_bits_in_each_shape(rank_pools, precision):
    network = Network(frozen=FROZEN)
    stages = (1, 2, 3) if precision == "bf16" else (0, 1, 2, 3)
    found = []
    for ranks, stage in [(1, 1), *((2, stage) for stage in stages)]:
        shape = Shape(stage, precision, numerics="exact")
        results = rank_pools(ranks).run(shape_jobs.train, shape, network, STEPS)
        found.append((results[0][0], shape_jobs.whole([owned for _, owned in results])))
    losses, state = found[0]
    for other_losses, other_state in found[1:]:
        assert other_losses == losses
        assert all(torch.equal(other_state[key], state[key]) for key in state)


@pytest.mark.parametrize(("ranks", "shape"), [*SHAPES, *ROUNDED], ids=str)
def test_frozen_parameters_are_loaded_from_other_weights(rank_pools, ranks, shape):
    frozen = frozen_names(NAMES, FROZEN)
    initial = dict(make_model().named_parameters())
    results = rank_pools(ranks).run(frozen_jobs.load_other_weights, shape, FROZEN)
    for weights, _ in results:
        for name in frozen:
            expected = 2 * initial[name].to(torch.bfloat16 if shape.precision == "bf16" else None)
            assert torch.equal(weights[name], expected.float()), name
    owned = [piece for _, pieces in results for piece in pieces]
    for name in frozen:
        pieces = sorted((start, part) for parameter, start, part in owned if parameter == name)
        whole = torch.cat([part for _, part in pieces])
        assert torch.equal(whole, 2 * initial[name].flatten()), name


@pytest.mark.parametrize("kept", ["*norm*", "*embedding*"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_only_matrices_or_only_vectors_may_be_trained(rank_pools, stage, kept):
    """Then a group of parameters is left out, because DeepSpeed does not accept an empty one."""
    frozen = tuple(name for name in NAMES if (kept.strip("*") not in name))
    found = rank_pools(2).run(frozen_jobs.train, Shape(stage), frozen, 2, 0.0)[0]
    assert len(found["groups"]) == 1
    assert found["losses"][1] != found["losses"][0]
    assert all(math.isfinite(norm) and norm > 0 for norm in found["norms"])


def test_a_pattern_that_matches_no_parameter_is_refused_with_the_nearest_names():
    with pytest.raises(EngineError, match=r"'encoder\.layer\.0.*33 parameters.*encoder\.layers"):
        frozen_names(NAMES, ["target_embedding.*", "encoder.layer.0.self_attention.output.bias"])


def test_freezing_all_parameters_is_refused():
    with pytest.raises(EngineError, match=r"is encoder\.\*, \*, which freezes all of 33"):
        frozen_names(NAMES, ["encoder.*", "*"])


def test_patterns_of_frozen_parameters_are_those_of_a_shell():
    assert frozen_names(NAMES, []) == ()
    assert frozen_names(("a.0.x", "a.1.x", "a.2.x"), ["a.[0-1].?"]) == ("a.0.x", "a.1.x")
    assert frozen_names(("A", "a"), ["A"]) == ("A",)
