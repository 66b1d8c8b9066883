"""Verification of a checkpoint, with its files distributed over the ranks."""

import pytest
import torch
from support.ranks.verification_jobs import verify
from support.records.checkpoints import make_header, save_checkpoint

from run_store.checkpoints.fragment import Fragment


@pytest.fixture
def checkpoint(tmp_path):
    shares = [[Fragment("master", "w", rank, torch.ones(1))] for rank in range(4)]
    return save_checkpoint(tmp_path, make_header(8), shares)


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_file_of_a_checkpoint_is_read_by_one_rank(rank_pools, checkpoint, ranks):
    answers = rank_pools(ranks).run(verify, checkpoint.path)
    assert [error for _, error in answers] == [""] * ranks
    read = [name for names, _ in answers for name in names]
    assert sorted(read) == [path.name for path in checkpoint.file_paths()]
    assert len({len(names) for names, _ in answers}) == 1


@pytest.mark.parametrize("ranks", [1, 2])
def test_damage_found_by_one_rank_is_an_error_on_all_ranks(rank_pools, checkpoint, ranks):
    damaged = checkpoint.file_paths()[-1]
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    errors = [error for _, error in rank_pools(ranks).run(verify, checkpoint.path)]
    assert all(str(checkpoint.path) in error and "is damaged" in error for error in errors)
    assert f"{damaged} has sha256" in errors[-1]
