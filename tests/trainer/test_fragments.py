"""The state moves between any two shapes, and a resumed run repeats an undisturbed one."""

from collections import defaultdict

import pytest
import torch
from safetensors.torch import load_file
from support import engine_jobs
from support.engine_jobs import Shape, committed

from trainer.checkpoints.format import Checkpoint
from trainer.fragments import MASTER, MOMENTS

HALF, STEPS = 4, 8
# Pairs of (ranks, stage): every stage is written and read, with 1, 2 and 3 ranks on either side.
MOVES = [
    ((1, 0), (3, 3)),
    ((2, 1), (1, 0)),
    ((3, 2), (2, 1)),
    ((2, 3), (3, 2)),
    ((3, 3), (2, 0)),
    ((2, 0), (1, 1)),
    ((3, 1), (2, 3)),
    ((1, 3), (2, 2)),
]


def save_half(rank_pools, folder, ranks, shape):
    results = rank_pools(ranks).run(engine_jobs.train_and_save, shape, HALF, folder)
    return committed(folder, [saved for _, saved in results])


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_run_goes_on_under_another_shape(rank_pools, tmp_path, before, after):
    undisturbed, _, _ = rank_pools(1).run(engine_jobs.train, Shape(0), STEPS)[0]
    path = save_half(rank_pools, tmp_path, before[0], Shape(before[1]))
    results = rank_pools(after[0]).run(engine_jobs.resume, Shape(after[1]), path, STEPS)
    for losses, _, loaded_exactly in results:
        assert loaded_exactly
        assert losses == pytest.approx(undisturbed[HALF:], rel=1e-5)


@pytest.mark.parametrize(
    ("ranks", "shape"),
    [
        (2, Shape(0)),
        (2, Shape(1)),
        (3, Shape(2)),
        (2, Shape(3)),
        (2, Shape(1, "bf16")),
        (2, Shape(2, "bf16")),
        (3, Shape(3, "bf16")),
    ],
    ids=str,
)
def test_at_equal_shape_the_resumed_run_is_bitwise_equal(rank_pools, tmp_path, ranks, shape):
    undisturbed, weights, _ = rank_pools(ranks).run(engine_jobs.train, shape, STEPS)[0]
    path = save_half(rank_pools, tmp_path, ranks, shape)
    losses, resumed, _ = rank_pools(ranks).run(engine_jobs.resume, shape, path, STEPS)[0]
    assert losses == undisturbed[HALF:]
    assert all(torch.equal(resumed[name], weights[name]) for name in weights)


def test_precision_changes_with_the_shape(rank_pools, tmp_path):
    path = save_half(rank_pools, tmp_path, 2, Shape(1, "bf16"))
    losses, _, exact = rank_pools(1).run(engine_jobs.resume, Shape(0), path, STEPS)[0]
    undisturbed, _, _ = rank_pools(1).run(engine_jobs.train, Shape(0), STEPS)[0]
    assert exact
    assert losses == pytest.approx(undisturbed[HALF:], rel=5e-3)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_every_element_is_written_by_exactly_one_rank(rank_pools, tmp_path, stage):
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
