"""Kills at random moments: the curve stays the undisturbed one, to the last bit.

The long form of tests/integration/test_one_curve.py; `make chaos` runs it.
"""

import random
import threading
import time

import pytest
import ray
from support.sabotage import kill, remember

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
    workers = remember(monkeypatch, supervisor, "start_data_workers")
    groups = remember(monkeypatch, supervisor, "RankGroup")
    dice = random.Random(seed)
    over = threading.Event()
    killed = []

    def sabotage():
        while not over.wait(dice.uniform(4, 10)):
            if not groups:
                continue
            victim = dice.choice([*workers[0], *groups[-1].actors])
            try:
                process_id = ray.get(victim.process_id.remote(), timeout=5)
            except ray.exceptions.RayError:
                continue  # dead already
            kill(process_id)
            killed.append((time.monotonic(), process_id))
            if len(killed) == 5:
                return

    thread = threading.Thread(target=sabotage)
    thread.start()
    try:
        result = runs.train("disturbed", *OPTIONS)
    finally:
        over.set()
        thread.join()
    assert result.outcome == "finished"
    assert killed
    assert runs.curve("disturbed") == runs.curve("undisturbed")
    assert runs.digests("disturbed") == runs.digests("undisturbed")
    assert not [e for e in runs.lines("disturbed", "event") if e["event"] != "resumed"]
