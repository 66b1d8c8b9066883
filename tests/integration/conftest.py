"""Fixtures of complete runs on a cluster."""

import pytest
from support.cluster.sabotage import remember

from cluster.ranks import rank_pool


@pytest.fixture
def groups(monkeypatch):
    """Return the groups of ranks, in the order of their creation."""
    return remember(monkeypatch, rank_pool, "RankGroup")
