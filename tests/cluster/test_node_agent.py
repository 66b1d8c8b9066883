"""What is done on each node: processes killed at once, the run's folder looked for."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import ray
from support.processes import command_of, wait_until

from cluster.errors import ClusterError
from cluster.node_agent import NodeAgents, ProcessName
from cluster.session import ray_session


@pytest.fixture
def agents(ray_head):
    """With one on this node; and the node's id."""
    with ray_session(ray_head.address):
        node = ray.get_runtime_context().get_node_id()
        agents = NodeAgents()
        agents.start({node: "here"})
        agents.start({node: "here"})
        yield agents, node


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def name_of(process: subprocess.Popen, node: str) -> ProcessName:
    return ProcessName(node, process.pid, psutil.Process(process.pid).create_time())


def test_a_stopped_process_is_killed_at_once_and_waited_for(agents, sleeper):
    agents, node = agents
    name = name_of(sleeper, node)
    agents.kill([])
    ray.get(agents.by_node[node].heard.remote())
    os.kill(sleeper.pid, signal.SIGSTOP)
    since = time.monotonic()
    agents.kill([name])
    assert time.monotonic() - since < 2
    assert not name.is_alive()
    assert agents.silent([node]) == set()


def test_another_process_of_the_same_id_is_left_alone(agents, sleeper):
    agents, node = agents
    former = ProcessName(node, sleeper.pid, psutil.Process(sleeper.pid).create_time() - 1)
    agents.kill([former])
    assert sleeper.poll() is None


def test_a_node_whose_agent_is_silent_is_known_until_it_answers(agents, sleeper, monkeypatch):
    monkeypatch.setattr("cluster.node_agent.ANSWER_SECONDS", 0.5)
    agents, node = agents
    ray.get(agents.by_node[node].heard.remote())
    (agent,) = [p for p in psutil.process_iter() if command_of(p)[:1] == ["ray::NodeAgent"]]
    agent.suspend()
    agents.kill([name_of(sleeper, node)])
    assert agents.silent([node]) == {node}
    assert agents.silent([]) == set()  # a node that is gone is nobody's concern


def test_a_node_is_relied_on_again_when_its_agent_answers(agents, sleeper, monkeypatch):
    monkeypatch.setattr("cluster.node_agent.ANSWER_SECONDS", 0.0)
    agents, node = agents
    agents.kill([name_of(sleeper, node)])
    wait_until(lambda: not agents.silent([node]), 10)
    assert sleeper.wait(timeout=10) == -signal.SIGKILL


def test_a_folder_that_both_see_is_fine(agents, tmp_path):
    agents, _ = agents
    agents.check_folder(tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


class ElsewhereAgent:
    """An agent on a node where paths lead elsewhere."""

    def __init__(self, agent, folder):
        self.meet = self
        self._agent, self._folder = agent, folder

    def remote(self, folder, left, answer):
        return self._agent.meet.remote(self._folder, left, answer)


def test_a_node_without_the_folder_is_named(agents, tmp_path):
    agents, node = agents
    agents.by_node[node] = ElsewhereAgent(agents.by_node[node], tmp_path / "elsewhere")
    with pytest.raises(ClusterError, match=f"Node here .*{tmp_path}.*No such file.*--run PATH"):
        agents.check_folder(tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_same_name_that_is_not_shared_is_found_out(agents, tmp_path):
    agents, node = agents

    class Twin(ElsewhereAgent):
        def remote(self, folder, left, answer):
            (self._folder / left).touch()  # somebody put it there, but not the supervisor
            return super().remote(folder, left, answer)

    twin = tmp_path / "twin"
    twin.mkdir()
    agents.by_node[node] = Twin(agents.by_node[node], twin)
    with pytest.raises(ClusterError, match="what it writes there is not seen here"):
        agents.check_folder(tmp_path, tmp_path)
