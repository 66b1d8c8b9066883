"""Random seeds derived from coordinates such as step and slot."""

import torch

from trainer.tasks.randomness import seed_of, seed_torch


def test_seed_torch_draws_the_numbers_of_manual_seed():
    seed_torch(1, "dropout", 7, 2)
    drawn = torch.rand(5)
    torch.manual_seed(seed_of(1, "dropout", 7, 2))
    assert torch.equal(drawn, torch.rand(5))


def test_seed_torch_also_seeds_cuda_if_torch_is_built_with_it(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    seed_torch(1, "dropout", 7, 2)
    assert seeded == [seed_of(1, "dropout", 7, 2)]
