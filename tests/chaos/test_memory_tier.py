"""Training state in memory after the loss of ranks, agents, nodes or both copies of it.

Nodes are Ray nodes of this machine; each has its own folder in /dev/shm, which is removed with it.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.cluster.processes import wait_until
from support.faults.case import check_is_undisturbed
from support.faults.moments import MEMORY_COPY, MID_STEP, PULL, RECOVERY
from support.faults.stage import opened_stage
from support.recipes import tiny_values

from run_store.checkpoints.memory_folder import user_folder
from run_store.record.metrics_lines import Resumed
from run_store.record.node_usage import newest_usage
from run_store.record.run_status import run_status_of

pytestmark = pytest.mark.chaos

EVERY = 8
MEMORY = (f"checkpoints.memory_every_steps={EVERY}", "checkpoints.every_steps=1000")
# One rank on each added node; the head has too few CPUs for a rank.
APART = ("cluster.cpus_per_rank=1.5", "cluster.placement=spread")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with opened_stage(tmp_path_factory.mktemp("memory")) as stage:
        yield stage


@pytest.fixture
def trial(stage):
    """Return a function that starts a run, optionally with one added node per rank."""
    started = []

    def start(*options, nodes=0):
        for _ in range(nodes):
            stage.cluster.add_node('--resources={"place": 1}')
        started.append(stage.trial(*MEMORY, *(APART if nodes else ()), *options))
        started[-1].start()
        return started[-1]

    yield start
    stage.cluster.orders.clear()
    for one in started:
        one.kill()
    stage.cluster.remove_nodes()


def memory_step(trial):
    vitals = run_status_of(trial.run.path).vitals
    return vitals.memory_checkpoint if vitals else None


def lose_node(stage, number):
    """Kill all processes of a node, and remove its folders in memory."""
    folders = list(user_folder().iterdir())
    stage.cluster.nodes[number].kill()
    wait_until(lambda: not all(is_locked(folder) for folder in folders))
    for folder in folders:
        if not is_locked(folder):
            shutil.rmtree(folder)


def answering_nodes(trial, since):
    return sum(line.time > since for (line,) in newest_usage(trial.run.nodes).nodes.values())


def is_locked(folder):
    if not folder.exists():
        return True
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def finish(stage, trial, resumed_from):
    assert trial.end() == 0, trial.story()
    check_is_undisturbed(trial, stage.undisturbed())
    assert [event.from_step for event in trial.lines(Resumed)] == resumed_from, trial.story()
    trial.check_nothing_is_left()
    wait_until(lambda: not list(user_folder().iterdir()))


def reach_held(run):
    """Hold rank 0 in the step after the first memory checkpoint, which is then complete."""
    early = run.reach(replace(MID_STEP, step=2), rank=0)
    wait_until(lambda: len(list(user_folder().glob("*/*/state-*"))) == 4)  # all slots exist
    order = run.cluster.orders.want(replace(MID_STEP, step=EVERY + 1))
    early.release()
    reached = run.wait_for(order)
    wait_until(lambda: memory_step(run) == EVERY)
    return reached


def kill_at(moment):
    """Kill the process that is held at a moment."""
    os.kill(moment.process_id, signal.SIGKILL)
    moment.release()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_recovers_from_a_rank_killed_while_it_copies_its_state(stage, trial, rank):
    run = trial()
    held = reach_held(run)
    order = run.cluster.orders.want(MEMORY_COPY, rank)
    held.release()
    kill_at(run.wait_for(order))
    finish(stage, run, [EVERY])


def test_a_run_recovers_from_a_rank_killed_while_it_restores_from_memory(stage, trial):
    run = trial()
    held = reach_held(run)
    order = run.cluster.orders.want(RECOVERY, 1)
    kill_at(held)
    kill_at(run.wait_for(order))
    finish(stage, run, [EVERY])


def test_the_state_of_a_lost_node_is_restored_from_the_next_nodes_copy(stage, trial):
    run = trial(nodes=2)
    held = reach_held(run)
    lose_node(stage, 0)
    stage.cluster.add_node()
    held.release()
    finish(stage, run, [EVERY])


def test_a_run_that_shrinks_to_one_rank_restores_both_shares(stage, trial):
    one_for_each_node = "cluster.resources_per_rank={place: 1}"
    elastic = "cluster.ranks={min: 1, max: 2}"
    run = trial("engine.numerics=exact", elastic, one_for_each_node, nodes=2)
    held = reach_held(run)
    lose_node(stage, 1)
    held.release()
    assert run.end() == 0, run.story()
    oracle = stage.undisturbed("engine.numerics=exact")
    ours = run.curve()
    assert (ours.losses, ours.digests) == (oracle.losses, oracle.digests)
    log = run.run.log.read_text()
    assert f"from the memory checkpoint of step {EVERY}" in log
    assert "resized from 2 to 1 rank" in log


def test_a_run_resumes_from_the_disk_if_both_copies_in_memory_are_lost(stage, trial):
    run = trial("checkpoints.every_steps=6", nodes=2)
    held = reach_held(run)
    wait_until(lambda: run.checkpoint and run.checkpoint.step == 6)
    for number in (0, 1):
        lose_node(stage, number)
    for _ in range(2):
        stage.cluster.add_node()
    held.release()
    finish(stage, run, [6])


def test_an_agent_killed_during_a_copy_costs_only_one_memory_checkpoint(stage, trial):
    run = trial("cluster.node_usage_seconds=1", nodes=2)
    early = run.cluster.orders.want(replace(MID_STEP, step=EVERY + 1))
    copying = run.reach(PULL, rank=0)
    agents = {agent.pid for agent in run.cluster.actors("NodeAgent")}
    kill_at(copying)
    held = run.wait_for(early)
    wait_until(lambda: "cannot be copied to node" in run.run.log.read_text())
    # A restarting agent refuses copies, and training may be faster than its restart.
    wait_until(lambda: {agent.pid for agent in run.cluster.actors("NodeAgent")} - agents)
    restart = time.time()
    wait_until(lambda: answering_nodes(run, restart) == 2)
    later = run.cluster.orders.want(replace(MID_STEP, step=2 * EVERY + 1))
    held.release()
    reached = run.wait_for(later)
    wait_until(lambda: memory_step(run) == 2 * EVERY)
    kill_at(reached)
    finish(stage, run, [2 * EVERY])


def test_a_run_continues_without_memory_checkpoints_if_dev_shm_is_too_small(tmp_path, phrasebook):
    """The mount namespace has a /dev/shm of 64 MB; the state of this model needs more."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    values = tiny_values(phrasebook, max_steps=4)
    values["model"] |= {"width": 512, "feed_forward_width": 2048}
    values["checkpoints"] |= {"memory_every_steps": 2}
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(values))
    transloom = Path(sys.executable).parent / "transloom"
    train = f"{transloom} train {recipe} --run {tmp_path / 'run'}"
    mount = "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    ended = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {train}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = " ".join((ended.stdout + ended.stderr).split())
    assert "memory checkpoints are off: they need" in said
    assert "of /dev/shm on the node of rank 0" in said
    assert "--shm-size" in said
