"""Lines of nodes.jsonl: requested periodically, and written on arrival without waiting."""

import json

import pytest
from support.cluster.processes import wait_until
from support.records.lines import train_line
from support.records.run_folders import made_run

from cluster.supervision.node_samples import LocalNodeSampler, NodeSampler
from run_store.folder import RunFolder
from run_store.record.node_usage import Usage

USAGE = Usage(cpu_percent=1, memory_used_bytes=2, memory_bytes=3)


class Nodes:
    """Nodes that answer when a test sets `answers`."""

    def __init__(self):
        self.asked = 0
        self.answers = {}

    def ask_usage(self):
        self.asked += 1

    def usage(self):
        answers, self.answers = self.answers, {}
        return answers


@pytest.fixture
def run(tmp_path):
    return RunFolder(made_run(tmp_path / "run", train_line(1), train_line(2)))


def written(run):
    return [json.loads(line) for line in run.nodes.read_text().splitlines()]


def test_usage_is_requested_at_the_interval_and_written_on_arrival(run):
    nodes = Nodes()
    samples = NodeSampler(run, nodes, every_seconds=30)
    for now in (0, 1, 29):
        samples.poll(now, 5)
    assert nodes.asked == 1
    assert not run.nodes.exists()  # no node has answered, and the sampler does not wait
    nodes.answers = {"a": USAGE, "b": USAGE}
    samples.poll(29.5, 6)
    samples.poll(30, 7)
    assert nodes.asked == 2
    nodes.answers = {"a": USAGE}
    samples.poll(31, 8)
    assert [(line["node"], line["step"]) for line in written(run)] == [("a", 6), ("b", 6), ("a", 8)]


def test_an_interval_of_0_turns_samples_off(run):
    nodes = Nodes()
    NodeSampler(run, nodes, every_seconds=0).poll(0, 5)
    assert nodes.asked == 0
    with LocalNodeSampler(run, "here", every_seconds=0):
        pass
    assert not run.nodes.exists()


def test_a_thread_samples_the_node_of_a_run_in_this_process(run):
    with LocalNodeSampler(run, "here", every_seconds=0.01):
        wait_until(run.nodes.exists)
        wait_until(lambda: len(written(run)) > 2)
    assert {(line["node"], line["step"]) for line in written(run)} == {("here", 2)}
