"""With exact numerics, any number of ranks and any ZeRO stage give the same bits."""

from functools import cache

import pytest
import torch
from support.ranks import address_jobs, engine_jobs, poison_jobs, shape_jobs
from support.ranks.engine_jobs import Shape
from support.ranks.shape_jobs import Network

STEPS = 6
FP32 = [(ranks, Shape(stage, numerics="exact")) for ranks in (1, 2, 3, 4) for stage in range(4)]
BF16 = [
    (ranks, Shape(stage, "bf16", numerics="exact")) for ranks in (1, 2, 3, 4) for stage in (1, 2, 3)
]
BF16.remove((3, Shape(3, "bf16", numerics="exact")))  # refused, as a test below shows
# Each number of ranks and each stage, combined so that the ranks differ most.
SHORT = [(1, 1), (1, 3), (2, 0), (2, 2), (3, 1), (3, 3)]


@pytest.fixture(scope="module")
def undisturbed(rank_pools):
    """Return a function of precision and steps: losses and whole state of one rank in stage 1."""

    @cache
    def result(precision, steps):
        return trained(rank_pools, 1, Shape(1, precision, numerics="exact"), steps)

    return result


def trained(rank_pools, ranks, shape, steps, network=None):
    results = rank_pools(ranks).run(shape_jobs.train, shape, network or Network(), steps)
    assert all(losses == results[0][0] for losses, _ in results)
    return results[0][0], shape_jobs.whole([owned for _, owned in results])


def assert_same_bits(found, expected):
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    different = [key for key in expected[1] if not torch.equal(found[1][key], expected[1][key])]
    assert not different


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [
        pytest.param(
            ranks,
            shape,
            marks=() if (ranks, shape.zero_stage) in SHORT else pytest.mark.chaos,
            id=f"{ranks}-ranks-stage-{shape.zero_stage}-{shape.precision}",
        )
        for ranks, shape in FP32 + BF16
    ],
)
def test_losses_weights_moments_and_average_have_the_same_bits(
    rank_pools, undisturbed, ranks, shape
):
    found = trained(rank_pools, ranks, shape, STEPS)
    assert_same_bits(found, undisturbed(shape.precision, STEPS))


@pytest.mark.parametrize(("ranks", "stage"), [(2, 3), (3, 2)])
@pytest.mark.parametrize(
    ("form", "part"),
    [("marian", "output_bias"), ("newer", "encoder.layers.0.feed_forward.gate_and_inner.bias")],
)
def test_marian_and_newer_networks_have_the_same_bits(rank_pools, ranks, stage, form, part):
    shapes = [Shape(number, numerics="exact") for number in (1, stage)]
    network = Network(form=form)
    expected = trained(rank_pools, 1, shapes[0], 2, network)
    assert_same_bits(trained(rank_pools, ranks, shapes[1], 2, network), expected)
    assert expected[1]["master", part].any()


@pytest.mark.long
def test_r_drop_has_the_same_bits_on_any_number_of_ranks(rank_pools):
    network = Network(r_drop=5.0)
    expected = trained(rank_pools, 1, Shape(1, numerics="exact"), 2, network)
    for ranks, stage in ((2, 0), (3, 3)):
        found = trained(rank_pools, ranks, Shape(stage, numerics="exact"), 2, network)
        assert_same_bits(found, expected)
    one_pass = trained(rank_pools, 1, Shape(1, numerics="exact"), 2)
    assert expected[0] != one_pass[0]


def test_losses_of_fast_sums_depend_on_the_number_of_ranks(rank_pools):
    """Otherwise the tests above would prove nothing."""
    one, three = (trained(rank_pools, ranks, Shape(1), STEPS) for ranks in (1, 3))
    assert one[0] == pytest.approx(three[0], rel=1e-5)
    assert one[0] != three[0]


def test_exact_sums_are_close_to_fast_ones(rank_pools, undisturbed):
    fast, _ = trained(rank_pools, 1, Shape(1), STEPS)
    assert undisturbed("fp32", STEPS)[0] == pytest.approx(fast, rel=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_clipped_training_has_the_same_bits_on_any_number_of_ranks(rank_pools, stage):
    job, steps, clipping = engine_jobs.train, 3, 0.05
    exact, fast = Shape(stage, numerics="exact"), Shape(stage)
    expected = rank_pools(1).run(job, Shape(1, numerics="exact"), steps, clipping)[0]
    losses, weights, norms = rank_pools(3).run(job, exact, steps, clipping)[0]
    plain_losses, _, plain_norms = rank_pools(3).run(job, fast, steps, clipping)[0]
    assert losses == expected[0]
    assert norms == expected[2]
    assert all(torch.equal(weights[name], expected[1][name]) for name in weights)
    assert norms == pytest.approx(plain_norms, rel=1e-3)
    assert losses == pytest.approx(plain_losses, rel=1e-4)


@pytest.fixture(scope="module")
def without_the_second_step(rank_pools):
    """Return a function of a shape: results of a run without its second step."""
    job = poison_jobs.train_without_the_second_step
    return cache(lambda shape: rank_pools(2).run(job, shape)[0])


# The detection of a bad loss does not depend on the stage; that of gradients and sums does.
@pytest.mark.parametrize(
    ("shape", "poison"),
    [
        pytest.param(
            shape,
            poison,
            marks=() if poison != "loss" or shape == Shape(3) else pytest.mark.chaos,
            id=f"{shape}-{poison}",
        )
        for shape in (Shape(0), Shape(1), Shape(3), Shape(1, "bf16"))
        for poison in ("loss", "gradient", "sum")
    ],
)
def test_a_non_finite_step_changes_neither_weights_nor_later_losses(
    rank_pools, without_the_second_step, shape, poison
):
    shape = Shape(shape.zero_stage, shape.precision, numerics="exact")
    results = rank_pools(2).run(poison_jobs.train_past_poison, shape, poison)
    expected = without_the_second_step(shape)
    for result in results:
        assert result["bad_slots"]
        assert result["unchanged"]
        assert result["losses"] == expected["losses"]
        assert all(
            torch.equal(weight, expected["weights"][name])
            for name, weight in result["weights"].items()
        )


def test_bf16_in_stage_3_on_three_ranks_is_refused_because_it_averages(rank_pools):
    with pytest.raises(Exception, match=r"has 3 ranks.*bf16 and zero_stage 3.*zero_stage 1 or 2"):
        rank_pools(3).run(engine_jobs.train, Shape(3, "bf16", numerics="exact"), 1)


@pytest.mark.parametrize("form", ["paper", "newer"])
@pytest.mark.parametrize(
    "shape", [Shape(0), Shape(1), Shape(1, "bf16"), Shape(2, "bf16"), Shape(3)], ids=str
)
def test_products_and_norms_read_parameters_at_addresses_divisible_by_16(rank_pools, shape, form):
    """On a GPU, another address can select another kernel, and thereby change bits."""
    ((reads, own),) = rank_pools(1).run(address_jobs.observe, shape, Network(form=form))
    assert set().union(*reads.values()) == {0}, reads
    assert any("mm" in name for name in reads)
    if form == "paper":  # a bias of 34 elements shifts the parameters after it in a flat buffer
        assert (own == {0}) == (shape.zero_stage == 0)
