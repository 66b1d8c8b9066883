"""Arguments and environment of a rank's process, and spare processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from support.cluster.scripted_ray import DEAD, Answer, ScriptedActor, ScriptedRay

from cluster.ranks import agent_client
from cluster.ranks import process as process_module
from cluster.ranks.process import RankProcess, SpareProcesses
from cluster.ray.reservation import RankBundle
from cluster.ray.session import ray_session
from trainer.process.host_memory import ALLOCATOR_ENVIRONMENT, allocator_environment

CODE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_libraries_get_their_cache_settings_when_a_rank_starts(ray_head):
    """If shapes do not recur, compiled code is not kept, because it would take gigabytes."""
    environment = allocator_environment(shapes_recur=False)
    assert {name for name in environment if environment[name] != ALLOCATOR_ENVIRONMENT[name]} == {
        CODE
    }
    assert int(environment[CODE]) < 1000 < int(allocator_environment(shapes_recur=True)[CODE])
    with ray_session(ray_head.address):
        (node,) = (node["NodeID"] for node in ray.nodes() if node["Alive"])
        process = RankProcess(RankBundle(node, None), "cpu", environment)
        found = Path(f"/proc/{ray.get(process.actor.process_id.remote())}/environ").read_text()
        ray.kill(process.actor)
    # In this copy, glibc has replaced the colon after each of its tunables with a null byte.
    expected = "\0".join(f"{name}={value}" for name, value in environment.items())
    assert {*expected.replace(":", "\0").split("\0")} <= {*found.replace(":", "\0").split("\0")}


class StartedProcesses:
    """Records of started processes, in order, in place of Ray actors."""

    def __init__(self, monkeypatch):
        self.ray, self.started = ScriptedRay(), []
        for module in (process_module, agent_client):
            monkeypatch.setattr(module, "ray", self.ray)
        monkeypatch.setattr(process_module, "RankProcess", self._start)
        self.killed = []
        self.spares = SpareProcesses("cpu", {"A": "1"}, self.killed.extend)

    def _start(self, rank_bundle, device, environment):
        assert (device, environment) == ("cpu", {"A": "1"})
        actor = ScriptedActor(process=lambda: "well")
        self.started.append(SimpleNamespace(rank_bundle=rank_bundle, actor=actor))
        return self.started[-1]


@pytest.fixture
def processes(monkeypatch):
    return StartedProcesses(monkeypatch)


A, B = RankBundle("a"), RankBundle("b")


def test_a_spare_with_a_rank_s_imports_waits_for_each_bundle(processes):
    rank = ScriptedActor(preparation=lambda: (["torch"], None))
    processes.spares.refill([A, A, B], rank)
    assert [one.rank_bundle for one in processes.started] == [A, A, B]
    assert processes.spares.waiting == processes.started
    for one in processes.started:
        ((preparation,),) = one.actor.calls["prepare"]
        assert preparation.value == (["torch"], None)
    processes.spares.refill([A, A, B], rank)
    assert len(processes.started) == 3


def test_spares_without_a_bundle_are_killed(processes):
    rank = ScriptedActor()
    processes.spares.refill([A, A, B], rank)
    first, second, other = processes.started
    processes.spares.refill([A, RankBundle("c")], rank)
    assert processes.killed == [second, other]
    assert processes.spares.waiting == [first, processes.started[3]]
    assert processes.started[3].rank_bundle == RankBundle("c")


def test_a_group_takes_the_spares_of_its_bundles_and_starts_missing_processes(processes):
    processes.spares.refill([A, B], ScriptedActor())
    on_a, on_b = processes.started
    taken = processes.spares.take([B, A, A])
    assert taken[:2] == [on_b, on_a]
    assert taken[2] is processes.started[2]
    assert taken[2].rank_bundle == A
    assert processes.spares.waiting == []
    assert processes.killed == []


def test_a_spare_with_another_gpu_is_not_taken(processes):
    processes.spares.refill([RankBundle("a", "0")], ScriptedActor())
    (taken,) = processes.spares.take([RankBundle("a", "1")])
    assert taken is processes.started[1]
    assert len(processes.spares.waiting) == 1


def test_spares_that_do_not_answer_are_killed_and_replaced(processes):
    processes.spares.refill([A, B, B], ScriptedActor())
    well, stopped, dead = processes.started
    stopped.actor.answers["process"] = []
    dead.actor.answers["process"] = [Answer(DEAD)]
    taken = processes.spares.take([A, B])
    assert processes.killed == [stopped, dead]
    assert taken == [well, processes.started[3]]
    assert processes.ray.waits == [process_module.ANSWER_SECONDS]


def test_without_spares_no_process_is_awaited_or_killed(monkeypatch):
    processes = StartedProcesses(monkeypatch)
    processes.spares._kill = pytest.fail
    assert processes.spares.take([A]) == processes.started
    assert processes.ray.waits == []
