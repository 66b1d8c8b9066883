"""Actions on each node: kill processes, read stacks, and check the run's folder and sources."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import RayError
from support.cluster.processes import HANG_SECONDS, wait_until
from support.command import started_python

from cluster.health.unfit_nodes import UnfitNodes
from cluster.health.watchdog import HeartbeatSender
from cluster.ranks.agent_client import NodeAgents, SilentNodesError
from cluster.ranks.node_agent import NodeAgent, start_agent
from cluster.ranks.node_folder import NodeFolders
from cluster.ranks.node_meter import UsageRequests
from cluster.ranks.node_mirror import pull_run
from cluster.ranks.node_processes import ProcessName, collect_stacks, kill_processes
from cluster.ray.session import ray_session
from run_store.folder import RunFolder
from run_store.process_identity import start_tick


@pytest.fixture(scope="module")
def started(ray_head):
    """Return an agent on this node, for all tests, and the node's id."""
    with ray_session(ray_head.address):
        node = ray.get_runtime_context().get_node_id()
        agents = NodeAgents(UnfitNodes())
        with HeartbeatSender(lambda: list(agents.by_node.values())):
            agents.start({node: "here"}, start_agent)
            agents.start({node: "here"}, start_agent)
            yield agents, node


@pytest.fixture
def node(started):
    """Return the node's id."""
    return started[1]


@pytest.fixture
def agents(started, node, monkeypatch):
    """Return node agents that answer, even if slowly on a busy machine."""
    monkeypatch.setattr("cluster.ranks.agent_client.ANSWER_SECONDS", 60.0)
    agents = NodeAgents(UnfitNodes())
    agents.by_node, agents.names = dict(started[0].by_node), {node: "here"}
    agents.ping([node])
    wait_until(lambda: not agents.unresponsive([node]))  # an earlier test may have killed it
    return agents


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def name_of(process: subprocess.Popen, node: str) -> ProcessName:
    return ProcessName(node, process.pid, start_tick(process.pid))


def test_a_stopped_process_is_killed_at_once_and_waited_for(agents, node, sleeper):
    name = name_of(sleeper, node)
    kill_processes(agents, [])
    ray.get(agents.by_node[node].heartbeat.remote())
    os.kill(sleeper.pid, signal.SIGSTOP)
    kill_processes(agents, [name])
    assert not name.is_alive()
    assert sleeper.wait() == -signal.SIGKILL
    assert agents.unresponsive([node]) == set()


def test_a_process_that_reuses_the_id_is_not_killed(agents, node, sleeper):
    former = ProcessName(node, sleeper.pid, start_tick(sleeper.pid) - 1)
    kill_processes(agents, [former])
    assert sleeper.poll() is None


def test_other_processes_are_killed_if_one_has_already_ended(sleeper, monkeypatch):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    names = [name_of(process, "here") for process in (ended, sleeper)]
    ended.wait()
    monkeypatch.setattr(ProcessName, "is_alive", lambda name: True)  # as if both lived when checked
    agent = NodeAgent.__ray_metadata__.modified_class
    agent.kill(SimpleNamespace(_exit_with_raylet=lambda: None), names)
    assert sleeper.wait() == -signal.SIGKILL


def test_the_rendezvous_files_of_killed_ranks_are_removed(agents, node, sleeper):
    name = name_of(sleeper, node)
    other = ProcessName(node, os.getpid(), start_tick(os.getpid()))
    mine, another = name.new_rendezvous(), other.new_rendezvous()
    try:
        for file in (mine, another):
            file.touch()
        assert name.rendezvous_files() == [mine]
        kill_processes(agents, [name])
        assert not mine.exists()
        assert another.exists()
    finally:
        another.unlink()


def test_a_node_with_a_silent_agent_is_unresponsive(agents, node, sleeper, ray_head, monkeypatch):
    ray.get(agents.by_node[node].heartbeat.remote())
    wait_until(lambda: len(ray_head.actors("NodeAgent")) == 1)  # agents of earlier tests end
    (agent,) = ray_head.actors("NodeAgent")
    assert agents.ping([node]) == set()
    monkeypatch.setattr("cluster.ranks.agent_client.ANSWER_SECONDS", 0.5)
    agent.suspend()
    try:
        assert agents.ping([node]) == {node}
        kill_processes(agents, [name_of(sleeper, node)])
        assert agents.unresponsive([node]) == {node}
        assert agents.unresponsive([]) == set()  # a node that is gone is not reported
    finally:
        agent.resume()


def test_a_node_whose_agent_died_is_unresponsive_until_the_next_agent_answers(
    agents, node, ray_head, monkeypatch
):
    ray.get(agents.by_node[node].heartbeat.remote())
    wait_until(lambda: len(ray_head.actors("NodeAgent")) == 1)  # agents of earlier tests end
    (agent,) = ray_head.actors("NodeAgent")
    monkeypatch.setattr("cluster.ranks.agent_client.ANSWER_SECONDS", 0.1)
    agent.suspend()
    assert agents.ping([node]) == {node}
    answer = agents.silent[node]
    agent.kill()
    assert ray.wait([answer], timeout=HANG_SECONDS)[0]
    with pytest.raises(RayError):
        ray.get(answer)
    assert agents.unresponsive([node]) == {node}
    wait_until(lambda: not agents.unresponsive([node]))
    ray.get(agents.by_node[node].heartbeat.remote())


ORPHAN = """
import os, sys, time
from cluster.ranks.node_agent import NodeAgent
agent = NodeAgent.__ray_metadata__.modified_class()
agent.{call}
raylet = os.getppid()
print("well", flush=True)
while os.getppid() == raylet:
    time.sleep(0.01)
agent.{call}
print("outlives its raylet")
"""


@pytest.mark.parametrize("call", ["heartbeat()", "kill([])"])
def test_an_agent_ends_when_its_raylet_has_died(call):
    raylet = subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1" & wait', sys.executable, ORPHAN.format(call=call)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert raylet.stdout.readline() == "well\n"
    raylet.kill()
    assert raylet.communicate(timeout=HANG_SECONDS)[0] == ""


def test_a_node_is_responsive_again_when_its_agent_answers(agents, node, sleeper, monkeypatch):
    monkeypatch.setattr("cluster.ranks.agent_client.ANSWER_SECONDS", 0.0)
    kill_processes(agents, [name_of(sleeper, node)])
    wait_until(lambda: not agents.unresponsive([node]))
    assert sleeper.wait() == -signal.SIGKILL


def test_stacks_of_a_process_are_read_on_its_node(agents, node):
    program = """
from cluster.health.stacks import enable_stack_dumps
def waits_for_nobody():
    print("here", flush=True)
    input()
enable_stack_dumps()
waits_for_nobody()
"""
    with started_python(program) as process:
        assert process.stdout.readline() == "here\n"
        name = name_of(process, node)
        assert "in waits_for_nobody" in collect_stacks(agents, [name])[name]
        process.kill()


def test_utilization_is_requested_one_at_a_time_without_wait(agents, node, ray_head, monkeypatch):
    usage = UsageRequests(agents)
    usage.ask([node, "a node that is not there"])
    found = {}
    wait_until(lambda: found.update(usage.take()) or found)
    assert list(found) == ["here"]
    assert 0 < found["here"].memory_used_bytes <= found["here"].memory_bytes
    wait_until(lambda: len(ray_head.actors("NodeAgent")) == 1)  # agents of earlier tests end
    (agent,) = ray_head.actors("NodeAgent")
    agent.suspend()
    usage.ask([node])
    asked = dict(usage._pending)
    usage.ask([node])  # no second request while an answer is pending
    assert usage._pending == asked
    assert usage.take() == {}
    agent.resume()
    wait_until(usage.take)
    usage.ask([node])
    agent.kill()
    wait_until(lambda: not (usage.take() or usage._pending))  # the lost answer causes no error


def test_a_folder_that_driver_and_node_share_has_no_problem(agents, tmp_path):
    folders = NodeFolders(agents)
    assert folders.check(tmp_path, RunFolder(tmp_path)) == []
    assert list(agents.unfit) == []
    assert list(tmp_path.iterdir()) == []


class ElsewhereAgent:
    """Stand-in for an agent on a node where paths lead to another folder."""

    def __init__(self, agent, folder):
        self.check_shared_folder, self.sources = self, agent.sources
        self._agent, self._folder = agent, folder

    def remote(self, folder, left, answer):
        return self._agent.check_shared_folder.remote(self._folder, left, answer)


def test_a_node_without_the_run_s_folder_is_reported(agents, node, tmp_path):
    folders = NodeFolders(agents)
    agents.by_node[node] = ElsewhereAgent(agents.by_node[node], tmp_path / "elsewhere")
    (problem,) = folders.check(tmp_path, RunFolder(tmp_path))
    assert re.search(f"Node here .*{tmp_path}.*No such file.*--run PATH", problem)
    assert [unfit.id for unfit in agents.unfit] == [node]
    assert folders.check(tmp_path, RunFolder(tmp_path)) == []  # the node is known to be unfit
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_same_name_that_is_not_shared_is_detected(agents, node, tmp_path):
    folders = NodeFolders(agents)

    class Twin(ElsewhereAgent):
        def remote(self, folder, left, answer):
            (self._folder / left).touch()  # created by another process, not by the supervisor
            return super().remote(folder, left, answer)

    twin = tmp_path / "twin"
    twin.mkdir()
    agents.by_node[node] = Twin(agents.by_node[node], twin)
    (problem,) = folders.check(tmp_path, RunFolder(tmp_path))
    assert "files that the node writes there are not visible" in problem


class SilentAgent:
    """Stand-in for an agent that answers questions about the folder only after `answer`."""

    def __init__(self, agent):
        self._agent, self._may = agent, SignalActor.options(num_cpus=0).remote()
        self.heartbeat = agent.heartbeat
        self.sources = self.check_shared_folder = self.open_mirror = self

    def remote(self, *arguments):
        return self._may.wait.remote()

    def answer(self):
        ray.get(self._may.send.remote())


@ray.remote
class SignalActor:
    def __init__(self):
        self._sent = asyncio.Event()

    async def wait(self):
        await self._sent.wait()

    async def send(self):
        self._sent.set()


@pytest.mark.parametrize("url", [None, "s3://bucket/run"])
def test_a_node_that_does_not_answer_is_asked_again_and_stays_fit(
    agents, node, tmp_path, monkeypatch, url
):
    folders = NodeFolders(agents)
    monkeypatch.setattr("cluster.ranks.node_folder.START_SECONDS", 0.5)
    agent = agents.by_node[node]
    silent = agents.by_node[node] = SilentAgent(agent)
    with pytest.raises(SilentNodesError, match=f"Node here has not answered .*{tmp_path}.*load"):
        folders.check(tmp_path, RunFolder(tmp_path, url))
    assert agents.unresponsive([node]) == {node}  # the node gets no ranks
    assert folders.check(tmp_path, RunFolder(tmp_path, url)) == []  # other nodes may start now
    assert (list(agents.unfit), folders.separate) == ([], set())
    assert list(tmp_path.iterdir()) == []

    silent.answer()
    wait_until(lambda: not agents.unresponsive([node]))
    monkeypatch.setattr("cluster.ranks.node_folder.START_SECONDS", HANG_SECONDS)
    agents.by_node[node] = ElsewhereAgent(agent, tmp_path / "elsewhere")
    (problem,) = folders.check(tmp_path, RunFolder(tmp_path))  # this answer decides
    assert "does not have the run's folder" in problem


def test_a_run_that_must_stop_does_not_wait_for_nodes(agents, node, tmp_path):
    folders = NodeFolders(agents)
    silent = agents.by_node[node] = SilentAgent(agents.by_node[node])
    silent.pull_run = SimpleNamespace(remote=lambda work, *, with_files: silent.remote())
    agents.give_up = lambda: True
    assert folders.check(tmp_path, RunFolder(tmp_path)) == []
    assert pull_run(agents, "work", [node], []) == (set(), [])
    assert (list(agents.unfit), agents.unresponsive([node])) == ([], set())
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_does_not_answer_a_pull_stays_fit(agents, node, monkeypatch):
    monkeypatch.setattr("cluster.ranks.node_mirror.PULL_SECONDS", 0.5)
    silent = SilentAgent(agents.by_node[node])
    silent.pull_run = SimpleNamespace(remote=lambda work, *, with_files: silent.remote())
    agents.by_node[node] = silent
    with pytest.raises(SilentNodesError, match="Node here has not pulled the run"):
        pull_run(agents, "work", [node], [])
    assert (list(agents.unfit), agents.unresponsive([node])) == ([], {node})


@pytest.mark.parametrize("is_changed", [False, True])
def test_an_embedded_ray_gets_no_folder_check(agents, node, tmp_path, monkeypatch, is_changed):
    folders = NodeFolders(agents)
    monkeypatch.setattr("cluster.ranks.node_folder.is_embedded", lambda: True)
    monkeypatch.setattr("cluster.ranks.node_folder.START_SECONDS", 0.0)
    agents.by_node[node] = SilentAgent(agents.by_node[node])
    if is_changed:
        folders._sources = "0" * 64
    problems = folders.check(tmp_path, RunFolder(tmp_path))
    assert [bool(re.search(r"Node here .*0{12}…", problem)) for problem in problems] == (
        [True] if is_changed else []
    )
    assert folders.check(tmp_path, RunFolder(tmp_path)) == []  # the node was already checked


def test_a_node_that_cannot_keep_a_copy_is_named_with_the_reason(agents, node, tmp_path):
    folders = NodeFolders(agents)

    class Full(ElsewhereAgent):
        def remote(self, url, work, left, answer):
            return ray.put("No space left on device")

    full = Full(agents.by_node[node], tmp_path)
    full.open_mirror = full
    agents.by_node[node] = full
    (problem,) = folders.check(tmp_path, RunFolder(tmp_path, "s3://bucket/run"))
    assert problem == (
        f"Node here cannot keep a copy of s3://bucket/run in {tmp_path}: No space left on device"
    )


@pytest.mark.parametrize("theirs", ["changed", "older"])
def test_a_node_whose_sources_differ_is_reported(agents, node, tmp_path, theirs):
    """The driver's sources were changed, or the node's agent has no method that reports its
    sources.
    """
    folders = NodeFolders(agents)
    ours = folders._sources
    if theirs == "changed":
        folders._sources = "0" * 64
    else:
        agent = agents.by_node[node]
        # The call fails in the agent, as that of an unknown method would.
        unknown = agent.check_shared_folder
        agents.by_node[node] = SimpleNamespace(
            check_shared_folder=agent.check_shared_folder,
            sources=SimpleNamespace(remote=lambda: unknown.remote(1, 2, 3)),
        )
    (problem,) = folders.check(tmp_path, RunFolder(tmp_path))
    found = ours[:12] if theirs == "changed" else "unknown"
    assert re.search(f"Node here .*{found}….*{folders._sources[:12]}….*transloom submit", problem)
    assert [unfit.id for unfit in agents.unfit] == [node]
    assert folders.check(tmp_path, RunFolder(tmp_path)) == []  # the node is known to be unfit


def test_an_agent_waits_for_a_death_until_the_process_is_not_alive(sleeper, monkeypatch):
    """Each check of the process is a heartbeat, so that the agent does not end during the wait."""
    looks = iter([True, True, False])
    monkeypatch.setattr(ProcessName, "is_alive", lambda name: next(looks))
    heartbeat = []
    agent = SimpleNamespace(_watchdog=SimpleNamespace(heartbeat=lambda: heartbeat.append("now")))
    NodeAgent.__ray_metadata__.modified_class.await_deaths(agent, [name_of(sleeper, "here")])
    assert list(looks) == []
    assert len(heartbeat) == 2
