"""Training state moves between any two shapes, and a resumed run repeats an undisturbed one."""

from collections import defaultdict
from functools import cache
from itertools import product

import pytest
import torch
from safetensors.torch import load_file
from support.covering import covering_cases, value_pairs
from support.ranks import engine_jobs, shape_jobs
from support.ranks.engine_jobs import LEARNING_RATE, Shape, committed
from support.ranks.shape_jobs import Network

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.fragment import EMA, MASTER
from trainer.zero.adamw import AdamWKind

MOMENTS = AdamWKind.moments
HALF, STEPS = 2, 4
LOOSELY = 1e-2  # tolerance if one of the shapes is in bf16

RANKS = (1, 2, 3)
STAGES = (0, 1, 2, 3)
PRECISIONS = ("fp32", "bf16")
GROUPS = ("matrices and vectors", "one")
EMBEDDINGS = ("all", "decoder", "none")
FACTORS = [RANKS, STAGES, PRECISIONS] * 2 + [GROUPS, EMBEDDINGS]
LAYOUTS = [
    (ranks, Shape(stage, precision))
    for ranks, stage, precision in product(RANKS, STAGES, PRECISIONS)
    if (stage, precision) != (0, "bf16")
]


def is_allowed(case):
    return all((stage, precision) != (0, "bf16") for stage, precision in (case[1:3], case[4:6]))


CASES = covering_cases(FACTORS, is_allowed)


def save_half(rank_pools, folder, ranks, shape):
    results = rank_pools(ranks).run(engine_jobs.train_and_save, shape, HALF, folder)
    return committed(folder, [saved for _, saved in results])


@pytest.fixture(scope="module")
def undisturbed(rank_pools):
    """Return a function of network and steps: losses of one rank in fp32."""

    @cache
    def losses(network, steps):
        return rank_pools(1).run(shape_jobs.train, Shape(0), network, steps)[0][0]

    return losses


@pytest.fixture(scope="module")
def first_half(rank_pools):
    """Return a function of layout and network: the whole state after the first steps."""

    @cache
    def state(ranks, shape, network):
        results = rank_pools(ranks).run(shape_jobs.train, shape, network, HALF)
        return shape_jobs.whole([owned for _, owned in results])

    return state


def assert_the_run_goes_on(rank_pools, state, expected, layout, network, tolerance):
    ranks, shape = layout
    last = HALF + len(expected)
    results = rank_pools(ranks).run(shape_jobs.go_on, shape, network, state, HALF + 1, last)
    loaded = shape_jobs.whole([owned for owned, *_ in results])
    assert {kind for kind, _ in loaded} == {MASTER, *MOMENTS, EMA}
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    decays = [0.01, 0.0] if network.groups == "matrices and vectors" else [0.01]
    for _, losses, optimizer_step, groups in results:
        assert losses == pytest.approx(expected, rel=tolerance)
        assert optimizer_step == last
        assert [group["weight_decay"] for group in groups] == decays
        assert {group["lr"] for group in groups} == {LEARNING_RATE}


def test_the_cases_contain_each_pair_of_values():
    every = set().union(*(value_pairs(case) for case in product(*FACTORS) if is_allowed(case)))
    assert set().union(*map(value_pairs, CASES)) == every
    assert all(map(is_allowed, CASES))
    assert len(CASES) == 16  # the minimum, because each pair of stages must occur


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_run_continues_in_another_shape(rank_pools, first_half, undisturbed, case):
    before, after = (case[0], Shape(*case[1:3])), (case[3], Shape(*case[4:6]))
    network = Network(*case[6:])
    state = first_half(*before, network)
    expected = undisturbed(network, STEPS)[HALF:]
    exact = before[1].precision == after[1].precision == "fp32"
    tolerance = 1e-5 if exact else LOOSELY
    assert_the_run_goes_on(rank_pools, state, expected, after, network, tolerance)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("before", LAYOUTS, ids=str)
def test_a_run_continues_in_each_other_shape(rank_pools, first_half, undisturbed, before):
    """For 50 steps in fp32; if one of the shapes is in bf16, only the loaded state is exact."""
    network = Network()
    state = first_half(*before, network)
    expected = undisturbed(network, HALF + 50)[HALF:]
    for after in LAYOUTS:
        if before[1].precision == after[1].precision == "fp32":
            assert_the_run_goes_on(rank_pools, state, expected, after, network, 1e-5)
        else:
            assert_the_run_goes_on(rank_pools, state, expected[:HALF], after, network, LOOSELY)


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [
        pytest.param(2, Shape(0), marks=pytest.mark.chaos),
        (2, Shape(1)),
        (3, Shape(2)),
        (2, Shape(3)),
        pytest.param(2, Shape(1, "bf16"), marks=pytest.mark.chaos),
        (2, Shape(2, "bf16")),
        (3, Shape(3, "bf16")),
    ],
    ids=str,
)
def test_a_run_resumed_in_the_same_shape_has_the_same_bits(rank_pools, tmp_path, ranks, shape):
    undisturbed, weights, _ = rank_pools(ranks).run(engine_jobs.train, shape, STEPS)[0]
    path = save_half(rank_pools, tmp_path, ranks, shape)
    losses, resumed, _ = rank_pools(ranks).run(engine_jobs.resume, shape, path, STEPS)[0]
    assert losses == undisturbed[HALF:]
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_each_element_is_written_by_exactly_one_rank(rank_pools, tmp_path, stage):
    checkpoint = Checkpoint(save_half(rank_pools, tmp_path, 3, Shape(stage)))
    pieces: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for file in checkpoint.file_paths():
        for key, tensor in load_file(file).items():
            kind, name, start = key.split(":")
            pieces[kind, name].append((int(start), int(start) + tensor.numel()))
    shapes = checkpoint.header.parameters
    assert set(pieces) == {(kind, name) for kind in (MASTER, *MOMENTS) for name in shapes}
    for (_, name), ranges in pieces.items():
        ranges.sort()
        assert ranges[0][0] == 0
        assert [stop for _, stop in ranges[:-1]] == [start for start, _ in ranges[1:]]
        assert ranges[-1][1] == torch.Size(shapes[name]).numel()
    assert checkpoint.header.optimizer_step == HALF
