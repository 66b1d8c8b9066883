"""Seeds that follow from a coordinate."""

import torch

from trainer.tasks.randomness import seed_of, seed_torch


def test_torch_is_seeded_as_manual_seed_does_it():
    seed_torch(1, "dropout", 7, 2)
    drawn = torch.rand(5)
    torch.manual_seed(seed_of(1, "dropout", 7, 2))
    assert torch.equal(drawn, torch.rand(5))


def test_cuda_is_seeded_where_torch_has_it(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    seed_torch(1, "dropout", 7, 2)
    assert seeded == [seed_of(1, "dropout", 7, 2)]
