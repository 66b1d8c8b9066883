"""A network with a different head loads the whole encoder of a checkpoint, and nothing else."""

import pytest
import torch
from support.ranks import inherited_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.inherited_jobs import BEGUN_WITH, CONFIG, make_labelled, make_masked
from support.records.checkpoints import make_header, save_checkpoint

from run_store.checkpoints.fragment import EMA, MASTER, Fragment
from run_store.errors import CheckpointError
from trainer.state.restore import WeightTransfer, plan_weight_transfer

SHAPES = {name: tuple(p.shape) for name, p in make_labelled().named_parameters()}


def saved(folder, network, kind="encoder_only", average=False):
    """Save a checkpoint of a network's weights, optionally also as a moving average."""
    weights = dict(network.named_parameters())
    owned = [
        Fragment(name, parameter, 0, (factor * weight.detach()).flatten())
        for parameter, weight in weights.items()
        for name, factor in ((MASTER, 7.0 if average else 1.0), (EMA, 1.0))
        if name == MASTER or average
    ]
    header = make_header(
        3,
        parameters={name: list(weight.shape) for name, weight in weights.items()},
        recipe={"model": {"network": kind}} if kind else {},
    )
    return save_checkpoint(folder, header, [owned])


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Return two checkpoints of a masked model, without and with a moving average."""
    folder = tmp_path_factory.mktemp("masked")
    return {
        average: saved(folder / str(average), make_masked(), average=average).path
        for average in (False, True)
    }


@pytest.mark.parametrize(
    ("ranks", "shape", "frozen", "average"),
    [
        (1, Shape(0), (), False),
        (1, Shape(2), (), True),
        (2, Shape(1, "bf16"), (), False),
        (2, Shape(3), BEGUN_WITH, False),
        (3, Shape(3, numerics="exact"), (), True),
        (2, Shape(2, "bf16"), BEGUN_WITH, True),
    ],
    ids=str,
)
def test_the_encoder_is_loaded_and_the_head_keeps_its_initial_weights(
    rank_pools, checkpoints, ranks, shape, frozen, average
):
    theirs, ours = dict(make_masked().named_parameters()), make_labelled().named_parameters()
    expected = {n: (theirs[n] if n.startswith("encoder.") else p).detach() for n, p in ours}
    job = inherited_jobs.begin_with
    found = rank_pools(ranks).run(job, shape, checkpoints[average], frozen)
    rounds = shape.precision == "bf16"
    for rank in found:
        for name, weight in expected.items():
            read = weight.bfloat16().float() if rounds else weight
            assert torch.equal(rank["weights"][name], read), name
    pieces = sorted((k, n, start, part) for f in found for k, n, start, part in f["owned"])
    for name, weight in expected.items():
        of_kind = {
            kind: torch.cat([part for k, n, _, part in pieces if (k, n) == (kind, name)])
            for kind in {kind for kind, n, *_ in pieces if n == name}
        }
        master = of_kind.pop(MASTER)
        fresh = not name.startswith("encoder.")  # DeepSpeed's master of bf16 weights is rounded
        rounded = rounds and fresh and name not in frozen
        read = weight.bfloat16().float() if rounded else weight
        assert torch.equal(master, read.flatten()), name
        assert not any(moment.any() for moment in of_kind.values())
    for rank in found:
        assert rank["said"] == [
            "the encoder is taken from the other run: 29 parameters with 11,020 weights. Newly "
            "initialized: classes.weight, classes.bias; not taken: output_bias, head.dense.weight, "
            "head.dense.bias, head.norm.weight, head.norm.bias"
        ]


def test_a_checkpoint_of_the_same_network_must_fit_as_a_whole(tmp_path):
    masked = make_masked()
    shapes = {name: tuple(p.shape) for name, p in masked.named_parameters()}
    for kind in ("encoder_only", None):  # None: saved before networks had names
        checkpoint = saved(tmp_path / str(kind), masked, kind)
        found = plan_weight_transfer(checkpoint, "encoder_only", shapes)
        assert found == WeightTransfer(tuple(shapes))
        assert found.skipped_text is None
        with pytest.raises(CheckpointError, match=r"parameter classes\.bias of shape None"):
            plan_weight_transfer(checkpoint, "encoder_only", SHAPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 24}, r"encoder\.embedding\.weight of shape \[31, 24\], .* has \[31, 20\]"),
        ({"layers": 3}, r"encoder\.layers\.2\.\S+ of shape \[\d+\], .* has None"),
        ({"segments": 0}, r"encoder\.segments\.weight of shape None, .* has \[2, 20\]"),
        ({"norm": "pre"}, r"encoder\.embedding_norm\.bias of shape None"),
    ],
    ids=str,
)
def test_an_encoder_that_fits_only_in_part_is_refused(tmp_path, change, message):
    config = CONFIG.model_validate({**CONFIG.model_dump(), "feed_forward_width": None, **change})
    checkpoint = saved(tmp_path, make_masked(config))
    with pytest.raises(CheckpointError, match=message):
        plan_weight_transfer(checkpoint, "labelled", SHAPES)


def test_networks_without_a_common_encoder_are_refused(tmp_path):
    checkpoint = saved(tmp_path, make_masked().head, "heads")
    with pytest.raises(CheckpointError, match=r"is heads in .* and labelled in the recipe\."):
        plan_weight_transfer(checkpoint, "labelled", SHAPES)
