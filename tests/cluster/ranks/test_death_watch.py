"""Deaths of ranks that node agents report, with scripted agents and with real processes."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import ray
from support.cluster.processes import HANG_SECONDS, wait_until
from support.cluster.scripted_ray import DEAD, ScriptedActor, ScriptedRay

from cluster.health.watchdog import HeartbeatSender
from cluster.ranks import agent_client
from cluster.ranks.death_watch import ANSWER_SECONDS, RETRY_SECONDS, DeathWatch
from cluster.ranks.node_agent import start_agent
from cluster.ranks.node_processes import ProcessName, dead_processes_here
from cluster.ray.session import ray_session
from run_store.process_identity import start_tick

A1, A2, B1 = ProcessName("a", 1, 7), ProcessName("a", 2, 7), ProcessName("b", 1, 7)


@pytest.fixture
def scripted(monkeypatch):
    """Return a watch over 4 processes on nodes a, b and c, and the agents of a and b."""
    monkeypatch.setattr(agent_client, "ray", ScriptedRay())
    agents = {node: ScriptedActor() for node in "ab"}
    watch = DeathWatch(agents, [A1, A2, B1, ProcessName("c", 1, 7)])
    watch.poll(0.0)
    return watch, agents


def requests(agents, node):
    return agents[node].calls["dead_processes"]


def test_each_agent_has_one_request_for_all_processes_of_its_node(scripted):
    watch, agents = scripted
    watch.poll(0.1)
    assert requests(agents, "a") == [([A1, A2], ANSWER_SECONDS)]
    assert requests(agents, "b") == [([B1], ANSWER_SECONDS)]
    assert len(watch.pending) == 2


def test_a_process_that_has_ended_is_no_longer_watched(scripted):
    watch, agents = scripted
    for pending, dead in zip(watch.pending, ([A2], [B1]), strict=True):
        pending.come(dead)
    watch.poll(0.1)
    assert watch.dead == {A2, B1}
    assert requests(agents, "a")[1:] == [([A1], ANSWER_SECONDS)]
    assert requests(agents, "b")[1:] == []
    assert len(watch.pending) == 1


def test_an_answer_without_a_death_is_followed_by_the_next_request(scripted):
    watch, agents = scripted
    watch.pending[0].come([])
    watch.poll(10.0)
    assert watch.dead == set()
    assert requests(agents, "a")[1:] == [([A1, A2], ANSWER_SECONDS)]


def test_the_successor_of_a_lost_agent_is_asked_about_all_processes(scripted):
    watch, agents = scripted
    watch.pending[0].come(DEAD)
    for now in (5.0, 5.0 + RETRY_SECONDS - 0.1):
        watch.poll(now)
        assert len(requests(agents, "a")) == 1
    watch.poll(5.0 + RETRY_SECONDS)
    assert requests(agents, "a")[1:] == [([A1, A2], ANSWER_SECONDS)]
    assert len(requests(agents, "b")) == 1


@pytest.fixture
def sleepers():
    """Return a function that starts a sleeping process on this node and returns its name."""
    started = []

    def start(node="here"):
        program = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(subprocess.Popen(program))
        process_id = started[-1].pid
        return ProcessName(node, process_id, start_tick(process_id))

    yield start
    for process in started:
        process.kill()
        process.wait()


def pidfds(process_id):
    """Return the number of open process descriptors."""
    count = 0
    for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(OSError):  # the folder's descriptor, or one that was closed meanwhile
            count += "pidfd" in str(descriptor.readlink())
    return count


def test_a_watch_waits_for_live_processes_and_leaves_no_descriptor_open(sleepers):
    names = [sleepers(), sleepers()]
    before = pidfds(os.getpid())
    assert dead_processes_here(names, 0.05) == []
    found = []
    watch = threading.Thread(target=lambda: found.extend(dead_processes_here(names, 3600.0)))
    watch.start()
    watch.join(0.2)
    assert watch.is_alive()
    os.kill(names[1].id, signal.SIGKILL)
    watch.join(HANG_SECONDS)
    assert found == [names[1]]
    assert pidfds(os.getpid()) == before


@pytest.mark.parametrize("ended", ["ended", "another of the same id"])
def test_a_process_that_ended_before_the_request_is_reported_at_once(sleepers, ended):
    living, name = sleepers(), sleepers()
    if ended == "ended":
        os.kill(name.id, signal.SIGKILL)
        wait_until(lambda: not name.is_alive())
    else:
        name = ProcessName(name.node, name.id, name.started - 1)
    before = pidfds(os.getpid())
    assert dead_processes_here([living, name], 3600.0) == [name]  # longer than a test may take
    assert dead_processes_here([ProcessName("here", 2**22 + 1, 7)], 3600.0) != []  # an unused id
    assert pidfds(os.getpid()) == before


@pytest.fixture(scope="module")
def agent(ray_head):
    """Return an agent on this node, its process, and the id of the node."""
    with ray_session(ray_head.address):
        node = ray.get_runtime_context().get_node_id()
        before = {process.pid for process in ray_head.actors("NodeAgent")}
        agent = start_agent(node)
        with HeartbeatSender(lambda: [agent]):
            ray.get(agent.heartbeat.remote())
            started = [one for one in ray_head.actors("NodeAgent") if one.pid not in before]
            yield agent, started[-1], node
            ray.kill(agent)


def await_descriptors(process_id, count):
    wait_until(lambda: pidfds(process_id) == count)


def test_an_agent_reports_deaths_and_closes_the_descriptors(agent, sleepers):
    agent, process, node = agent
    names = [sleepers(node) for _ in range(3)]
    watch = DeathWatch({node: agent}, names)
    for remaining in (3, 2, 1):
        watch.poll(0.0)
        await_descriptors(process.pid, remaining)
        os.kill(names[remaining - 1].id, signal.SIGKILL)
        assert ray.wait(watch.pending, timeout=60)[0]
    watch.poll(0.0)
    assert watch.dead == set(names)
    assert watch.pending == []
    await_descriptors(process.pid, 0)


def test_an_agent_that_was_suspended_reports_deaths_when_it_continues(agent, sleepers):
    agent, process, node = agent
    first, second = sleepers(node), sleepers(node)
    watch = DeathWatch({node: agent}, [first, second])
    watch.poll(0.0)
    await_descriptors(process.pid, 2)
    process.suspend()
    try:
        os.kill(first.id, signal.SIGKILL)
        assert not ray.wait(watch.pending, timeout=0.5)[0]
    finally:
        process.resume()
    assert ray.wait(watch.pending, timeout=60)[0]
    watch.poll(0.0)
    assert watch.dead == {first}
    await_descriptors(process.pid, 1)
    os.kill(second.id, signal.SIGKILL)
    assert ray.wait(watch.pending, timeout=60)[0]
    watch.poll(0.0)
    assert watch.dead == {first, second}
    await_descriptors(process.pid, 0)


def test_a_request_of_a_former_group_does_not_block_the_next_one_forever(
    agent, sleepers, monkeypatch
):
    """A process of the former group stays alive, although it was killed."""
    monkeypatch.setattr("cluster.ranks.death_watch.ANSWER_SECONDS", 0.5)
    agent, process, node = agent
    former = DeathWatch({node: agent}, [sleepers(node)])
    former.poll(0.0)
    await_descriptors(process.pid, 1)
    del former
    name = sleepers(node)
    watch = DeathWatch({node: agent}, [name])
    os.kill(name.id, signal.SIGKILL)
    watch.poll(0.0)
    assert ray.wait(watch.pending, timeout=60)[0]
    watch.poll(0.0)
    assert watch.dead == {name}
    await_descriptors(process.pid, 0)
