"""A bit of one rank's weights flips in memory while a run trains with Ray: the rank is named, its
node is excluded if the run can do without it, and the curve is that of an undisturbed run.
"""

import json

import pytest

from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import CorruptionFound, ReplayMismatch, Resumed
from run_store.record.run_status import run_status_of
from transloom.observe.comparison.comparison import compare_runs

STEPS = 12
FLIPS_IN = 6
SETTINGS = (
    "engine.numerics=exact",
    "batching.micro_batches_per_step=6",
    f"trainer.max_steps={STEPS}",
    "checkpoints.every_steps=4",
    "tracking.wandb=disabled",
)
CHECKED = ("engine.verify_every_steps=2", "cluster.placement=spread")


@pytest.fixture
def oracle(runs):
    """Return the same run of one rank without Ray, which checks nothing."""
    runs.train("undisturbed", *SETTINGS, inline=True)
    return runs.folder / "undisturbed"


def check_is_found(path, oracle):
    """Check that rank 1 is named everywhere and the curve is undisturbed, and return the event."""
    lines = read_metrics(path / "metrics.jsonl")
    (event,) = (line for line in lines if isinstance(line, CorruptionFound))
    assert (event.ranks, event.is_certain, event.is_reproducible) == ((1,), True, True)
    assert (event.step, event.checked_step, event.last_verified_step) == (5, FLIPS_IN, 4)
    assert event.slots
    assert event.parameter_count > 10
    (resumed,) = (line for line in lines if isinstance(line, Resumed))
    assert resumed.from_step == 4
    assert not any(isinstance(line, ReplayMismatch) for line in lines)
    compared = compare_runs(path, oracle)
    assert compared.is_same, compared
    assert (compared.steps, compared.checkpoint_step) == (STEPS, STEPS)
    assert f"rank 1 on node {event.nodes[0]} computed other bits" in (path / "log.txt").read_text()
    return event


@pytest.mark.long
def test_a_corrupt_rank_on_the_only_node_is_named_and_the_ranks_restart_once(
    runs, orders, oracle, notified
):
    setting, messages = notified
    orders.flip(FLIPS_IN, rank=1)
    try:
        result = runs.train("struck", *SETTINGS, *CHECKED, "cluster.ranks=3", setting)
    finally:
        orders.clear()
    assert result.outcome == "finished"
    path = runs.folder / "struck"
    event = check_is_found(path, oracle)
    assert "restarting once on the same nodes" in (path / "log.txt").read_text()
    assert run_status_of(path).ranks == 3
    log = run_status_of(path)
    assert log.state == "finished"
    told = [json.loads(line) for line in messages.read_text().splitlines() if line]
    (bad,) = (message for message in told if message["event"] == "bad_node")
    assert f"rank 1 on node {event.nodes[0]}" in bad["text"]


@pytest.mark.chaos
def test_a_corrupt_node_that_the_run_does_not_need_is_excluded(runs, ray_head, orders, oracle):
    nodes = [ray_head.add_node(1) for _ in range(2)]
    orders.flip(FLIPS_IN, rank=1)
    try:
        ranks = ("cluster.ranks={min: 2, max: 3}", "cluster.cpus_per_rank=1")
        result = runs.train("struck", *SETTINGS, *CHECKED, *ranks)
    finally:
        orders.clear()
        for node in nodes:
            node.kill()
    assert result.outcome == "finished"
    path = runs.folder / "struck"
    event = check_is_found(path, oracle)
    used = run_status_of(path)
    assert used.ranks >= 2
    assert event.nodes[0] not in used.nodes
    assert f"no longer uses node {event.nodes[0]}" in (path / "log.txt").read_text()
