"""A run uses as many ranks as fit: fewer when a node leaves, more when a node joins."""

import threading
import time

import pytest
import ray
from ray._private import state
from ray._raylet import GcsClient
from ray.core.generated import autoscaler_pb2
from support.cluster.processes import wait_until
from support.cluster.story import Story
from support.cluster.strike import standing_at
from support.command import started_python

from cluster.errors import ClusterError
from cluster.ray.session import ray_session
from cluster.supervision import attempt_end, retry_budget
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics

# A rank needs three CPUs, so there is room for one on the head, which has four, and for another on
# a node that a test adds.
OPTIONS = [
    "cluster.ranks={min: 1, max: 2}",
    "cluster.cpus_per_rank=3",
    "checkpoints.every_steps=10",
    "trainer.max_steps=100000",
]
CPUS_OF_A_RANK = 3


@pytest.fixture
def folder(runs):
    return RunFolder(runs.folder / "run")


@pytest.fixture
def nodes(ray_head):
    """Return a function that adds nodes to the head, which end with the test."""
    started = []

    def add():
        started.append(ray_head.add_node(CPUS_OF_A_RANK))
        return started[-1]

    yield add
    for node in started:
        node.kill()


def last(folder, ranks):
    """Return the run's last step if this number of ranks trains it, else 0."""
    lines = read_metrics(folder.metrics)[-1:] if folder.metrics.exists() else []
    return lines[0].step if lines and getattr(lines[0], "world_size", 0) == ranks else 0


def drain(address, node_id, seconds):
    """Drain a node as `ray drain-node` does."""
    deadline = int((time.time() + seconds) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, problem = GcsClient(address=address).drain_node(node_id, reason, "", deadline)
    assert accepted, problem


def test_a_run_grows_when_a_node_joins_and_shrinks_when_it_drains(
    runs, folder, nodes, orders, one_rank, monkeypatch
):
    """The curve equals that of one rank up to rounding, because its ranks have three threads."""
    monkeypatch.setattr(attempt_end, "SCALE_UP_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(attempt_end, "CHECK_SECONDS", 0.2)

    def tell():
        with standing_at(orders, 15):  # idle CPUs start the node faster
            assert last(folder, ranks=1)
            head = {node["NodeID"] for node in ray.nodes()}
            nodes()
        wait_until(lambda: last(folder, ranks=2))
        (new,) = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - head
        drain(runs.address, new, seconds=600)
        wait_until(lambda: last(folder, ranks=1))
        assert new in state.state.get_draining_nodes()

    story = Story(folder, tell)
    result = runs.train("run", *OPTIONS, "cluster.grace_seconds=600")
    story.end()
    assert result.outcome == "stopped"
    log = folder.log.read_text()
    assert "there is capacity for more ranks: the ranks leave after a checkpoint" in log
    assert "resized from 1 to 2 ranks" in log
    assert "is being drained: the ranks leave after a checkpoint" in log
    assert "resized from 2 to 1 rank" in log
    recorded = [line["step"] for line in runs.lines("run")]
    assert recorded == list(range(1, recorded[-1] + 1))
    both = min(len(recorded), 60)
    assert runs.curve("run")[:both] == pytest.approx(one_rank.curve("one-rank")[:both], rel=1e-5)
    assert runs.digests("run")[:both] == one_rank.digests("one-rank")[:both]
    events = runs.lines("run", "event")
    resizes = [(e["from_ranks"], e["to_ranks"]) for e in events if e["event"] == "resized"]
    assert resizes == [(1, 2), (2, 1)]
    assert {event["event"] for event in events} == {"resumed", "resized", "preempted"}
    lost = [event["lost_steps"] for event in events if event["event"] == "resumed"]
    assert lost == [0] * len(lost)  # every group has saved a checkpoint before it left


def test_the_loss_of_a_node_is_no_failure_of_the_run_and_the_node_is_not_used_again(
    runs, folder, nodes, monkeypatch
):
    monkeypatch.setattr(retry_budget, "ATTEMPTS_WITHOUT_PROGRESS", 1)
    node = nodes()
    with ray_session(runs.address):
        wait_until(lambda: [n["Alive"] for n in ray.nodes()].count(True) == 2)

    def tell():
        # Its rank has started, but trained no step, so a failure would end the run.
        wait_until(lambda: folder.log.exists() and "starting 2 ranks" in folder.log.read_text())
        wait_until(lambda: any("RankActor" in title for title in node.titles()))
        node.kill_raylet()
        wait_until(lambda: last(folder, ranks=1))

    story = Story(folder, tell)
    result = runs.train("run", *OPTIONS)
    story.end()
    assert result.outcome == "stopped"
    log = folder.log.read_text()
    assert log.count("starting 2 ranks") == 1
    assert log.count("is lost, which does not count as a failure; restart 1 of this session") == 1
    assert "restart 2" not in log
    assert "resized from 2 to 1 rank" in log


HOLDER = """
import sys, ray
from cluster.ray.session import ray_session

@ray.remote(num_cpus=1)
class Holder:
    def hold(self): pass

with ray_session(sys.argv[1]):
    holder = Holder.remote()
    ray.get(holder.hold.remote())
    print("holds", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.chaos
def test_a_run_waits_for_room_for_its_smallest_number_of_ranks(runs, folder):
    options = ["cluster.ranks=2", "cluster.cpus_per_rank=2", "trainer.max_steps=2"]
    with started_python(HOLDER, runs.address) as holder:
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(ClusterError):
            runs.train("run", *options, "cluster.wait_for_ranks_seconds=1")

        def release():
            wait_until(lambda: "waiting for up to 600 s" in folder.log.read_text())
            holder.stdin.write("enough\n")
            holder.stdin.flush()

        thread = threading.Thread(target=release)
        thread.start()
        result = runs.train("run", *options, "cluster.wait_for_ranks_seconds=600")
        thread.join()
    assert result.outcome == "finished"
