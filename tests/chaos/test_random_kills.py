"""Kills at random moments: the curve stays the undisturbed one, to the last bit.

The long form of tests/integration/test_one_curve.py; `make chaos` runs it.
"""

import random

import pytest
from support.sabotage import RandomKills, remember

from cluster import supervisor

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

STEPS = 300
OPTIONS = [
    "cluster.ranks=2",
    "cluster.data_workers=2",
    f"trainer.max_steps={STEPS}",
    "checkpoints.every_steps=20",
]


@pytest.mark.parametrize("seed", [1, 2])
def test_ranks_and_data_workers_killed_at_random(runs, monkeypatch, seed):
    runs.train("undisturbed", *OPTIONS)
    workers = remember(monkeypatch, supervisor, "DataWorkers")
    groups = remember(monkeypatch, supervisor, "RankGroup")

    def victims():
        ranks = groups[-1].actors if groups else []
        return [*ranks, *(handle.actor for handle in workers[0].handles)] if workers else []

    with RandomKills(victims, random.Random(seed), (4, 10), most=5) as kills:
        result = runs.train("disturbed", *OPTIONS)
    assert result.outcome == "finished"
    assert kills.killed
    assert runs.curve("disturbed") == runs.curve("undisturbed")
    assert runs.digests("disturbed") == runs.digests("undisturbed")
    assert not [e for e in runs.lines("disturbed", "event") if e["event"] != "resumed"]
