"""A task of a Slurm job's step, with a stand-in for the Ray node; `make lab` uses real nodes."""

import os
import socket
from collections.abc import Callable

import pytest

from cluster.errors import ClusterError
from cluster.launchers import slurm_node
from cluster.launchers.slurm_node import serve_node
from cluster.ray.started_node import NodeSettings

SETTINGS = NodeSettings(cpus=2, gpus=0, niceness=3)
HEAD = "10.0.0.1:6379"


class Node:
    """Node that dies at once or never."""

    last_output = "the raylet was killed"

    def __init__(self, head: str | None, *, dies: bool) -> None:
        self.joins = head
        self.head = head or HEAD
        self.times_ended = 0
        self._dies = dies

    def on_exit(self, tell: Callable[[], None]) -> None:
        if self._dies:
            tell()

    def end(self) -> None:
        self.times_ended += 1


class Step:
    """Serves one task of a step; records the nodes that it starts and the lines that it prints."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[Node] = []
        self.told: list[str] = []
        self._monkeypatch = monkeypatch

    def serve(self, task: int, script: str, *, dies: bool = False) -> None:
        """
        Args:
            script: all lines that the job's script sends to the task. If the node dies, the input
                does not end.
        """

        def start(settings: NodeSettings, head: str | None) -> Node:
            assert settings == SETTINGS
            self.nodes.append(Node(head, dies=dies))
            return self.nodes[-1]

        self._monkeypatch.setattr(slurm_node, "StartedNode", start)
        self._monkeypatch.setenv("SLURM_NODEID", str(task))
        reading, writing = os.pipe()
        with os.fdopen(reading) as told, os.fdopen(writing, "w") as said:
            said.write(script)
            said.flush()
            if not dies:
                said.close()
            serve_node(SETTINGS, told, self.told.append)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Step:
    # Ray would keep the token in this process, which other tests use, too.
    monkeypatch.setattr(slurm_node, "enable_authentication", lambda *, create_token: None)
    return Step(monkeypatch)


def test_the_first_task_is_the_head_and_ends_with_its_input(step: Step) -> None:
    step.serve(0, f"{HEAD}\n")  # the script sends this line to all tasks
    (node,) = step.nodes
    assert (node.joins, node.times_ended, step.told) == (None, 1, [HEAD])


def test_other_tasks_join_the_head_that_the_script_names(step: Step) -> None:
    step.serve(1, f"{HEAD}\n")
    (node,) = step.nodes
    assert (node.joins, node.times_ended, step.told) == (HEAD, 1, [socket.gethostname()])


def test_other_tasks_start_no_node_without_a_head(step: Step) -> None:
    step.serve(1, "")
    assert (step.nodes, step.told) == ([], [])


def test_a_head_that_dies_ends_the_step_with_an_error(step: Step) -> None:
    with pytest.raises(ClusterError, match=f"ended on {socket.gethostname()}.*raylet was killed"):
        step.serve(0, "", dies=True)
    assert step.nodes[0].times_ended == 1


def test_a_worker_node_that_dies_is_a_warning(step: Step, caplog: pytest.LogCaptureFixture) -> None:
    step.serve(1, f"{HEAD}\n", dies=True)
    assert step.nodes[0].times_ended == 1
    assert "raylet was killed" in caplog.text
