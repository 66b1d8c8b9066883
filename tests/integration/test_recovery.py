"""Lost ranks: how soon another group trains, the messages, and when the run gives up."""

import re
import signal
import time

import pytest
import ray
from support.cluster.processes import is_alive, wait_until
from support.cluster.sabotage import kill, process_ids, remember
from support.cluster.story import Story
from support.cluster.strike import Strike
from support.faults.moments import MID_STEP

from cluster.errors import ClusterError, RankLostError
from cluster.ranks import process, rank_pool
from cluster.supervision import retry_budget, supervisor
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import TrainLine

IMPORTED_BY_AN_ENGINE = "deepspeed.runtime.zero.muon.muon_optimizer"
COMPILER = "torch._dynamo"


def ids_of(processes) -> list[int]:
    return [process.name.id for process in processes]


def test_warm_spares_replace_a_group_that_has_lost_a_rank(runs, groups, monkeypatch):
    monkeypatch.setattr(process, "ANSWER_SECONDS", 120.0)  # otherwise, a busy spare is replaced
    supplies = remember(monkeypatch, rank_pool, "SpareProcesses")
    folder = RunFolder(runs.folder / "run")
    figures = {}

    def tell():
        wait_until(lambda: supplies and len(supplies[0].waiting) == 2)
        spares = list(supplies[0].waiting)
        wait_until(lambda: all(IMPORTED_BY_AN_ENGINE in modules(spare) for spare in spares))
        wait_until(lambda: list_checkpoints(folder.checkpoints))
        figures["spares"] = ids_of(spares)
        kill(ids_of(groups[0].processes)[1])
        killed_at = time.monotonic()
        wait_until(has_recovered)
        figures["seconds"] = time.monotonic() - killed_at
        assert not any(COMPILER in modules(spare) for spare in spares)  # the spares are ranks now
        wait_until(lambda: len(spares_now()) == 2)
        figures["new spares"] = ids_of(spares_now())

    def has_recovered():
        last_lines = read_metrics(folder.metrics)[-3:]
        return any(isinstance(line, TrainLine) and line.restarts for line in last_lines)

    def spares_now():
        return [spare for spare in supplies[0].waiting if spare.name]

    story = Story(folder, tell)
    options = ["cluster.ranks=2", "cluster.warm_spares=true", "checkpoints.every_steps=10"]
    result = runs.train("run", *options, "trainer.max_steps=100000")
    story.end()
    assert result.outcome == "stopped"
    print(f"next new step {figures['seconds']:.2f} s after kill -9")
    assert len(groups) == 2
    assert sorted(ids_of(groups[1].processes)) == sorted(figures["spares"])
    assert {event["event"] for event in runs.lines("run", "event")} == {"resumed", "preempted"}
    assert "restart 1 of this session" in runs.log("run")
    assert not any(map(is_alive, figures["spares"] + figures["new spares"]))


def modules(spare) -> list[str]:
    return ray.get(spare.actor.preparation.remote())[0]


@pytest.mark.chaos  # test_faults.py has a shorter form of this test
def test_a_suspended_rank_is_detected_killed_and_replaced(runs, undisturbed, orders, groups):
    options = ["cluster.ranks=2", "trainer.max_steps=40", "checkpoints.every_steps=10"]
    stopped = []

    def stop(reached):
        wait_until(lambda: groups[0].heartbeats()[0][0].step == 15)  # until step 15 was reported
        stopped.append(reached.process_id)
        kill(reached.process_id, signal.SIGSTOP)

    with Strike(orders, MID_STEP, stop):
        runs.train("run", *options, "cluster.deadlines.answer_seconds=15")
    assert runs.curve("run") == undisturbed.curve("undisturbed")[:40]
    assert not is_alive(stopped[0])
    assert "Rank 0 on node" in runs.log("run")
    assert re.search(r"has not answered for 15 s, in phase (data|step) of step 15", runs.log("run"))


def test_a_killed_agent_costs_no_rank_and_no_bit(runs, undisturbed, orders, groups, ray_head):
    """Ray starts another agent, which watches the ranks."""
    watched = []

    def kill_agent(_):
        wait_until(lambda: len(ray_head.actors("NodeAgent")) == 1)  # agents of earlier tests end
        (agent,) = ray_head.actors("NodeAgent")
        kill(agent.pid)
        wait_until(lambda: [p for p in ray_head.actors("NodeAgent") if p.pid != agent.pid])
        wait_until(lambda: groups[0]._death_watch.pending)
        watched.append(groups[0]._death_watch.dead)

    with Strike(orders, MID_STEP, kill_agent):
        runs.train("run", "cluster.ranks=2", "trainer.max_steps=40")
    assert watched == [set()]
    assert len(groups) == 1
    assert runs.lines("run", "event") == []
    assert runs.curve("run") == undisturbed.curve("undisturbed")[:40]


@pytest.mark.chaos
def test_missing_data_ends_the_run_before_the_ranks_count_as_hung(runs, orders, monkeypatch):
    """All ranks wait for data of a suspended worker, and answer polls while they wait."""
    workers = remember(monkeypatch, supervisor, "DataWorkers")
    options = ["cluster.ranks=2", "trainer.max_steps=40", "cluster.deadlines.step_seconds=30"]
    stopped = []

    def stop(_):
        stopped.extend(process_ids(workers[0]))
        kill(stopped[0], signal.SIGSTOP)

    with (
        Strike(orders, MID_STEP, stop),
        pytest.raises(ClusterError),
    ):
        runs.train("run", *options)
    wait_until(lambda: not is_alive(stopped[0]))


@pytest.mark.proof
def test_a_failure_that_repeats_ends_the_run_with_its_cause(runs, groups, monkeypatch):
    monkeypatch.setattr(retry_budget, "ATTEMPTS_WITHOUT_PROGRESS", 2)
    run = runs.folder / "run"
    (run / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(RankLostError) as failure:
        runs.train("run", "trainer.max_steps=4")
    assert len(groups) == 2
    assert "Rank 0 on node" in str(failure.value)
    assert "has failed in phase start: IsADirectoryError" in str(failure.value)
    assert "The run got no further than step 0 in 2 attempts" in str(failure.value)
