"""Fixtures shared by all tests. Costly things (rank processes, Ray) are made once."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

MULTI30K = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k"


@pytest.fixture(scope="session")
def multi30k() -> Path:
    """The folder with the real corpus."""
    if not MULTI30K.is_dir():
        pytest.skip(f"no Multi30k at {MULTI30K}")
    return MULTI30K


@pytest.fixture(scope="session")
def rank_pools() -> Iterator[Callable[[int], object]]:
    """Rank processes by world size, started when first asked for."""
    from support.rank_pool import RankPool

    pools: dict[int, RankPool] = {}

    def pool(world_size: int) -> RankPool:
        if world_size not in pools:
            pools[world_size] = RankPool(world_size)
        return pools[world_size]

    yield pool
    for started in pools.values():
        started.close()
