"""Ranks on three hosts, without variables set by hand, train the same run as on one host.

The bits stay the same while cables, raylets, agents and hosts are lost and return, because exact
numerics make them independent of the number of ranks.
"""

import re
import time

import pytest
from support.cluster.hosts import Hosts, Names
from support.cluster.lab_run import LabRun
from support.cluster.processes import command_of, wait_until
from support.cluster.ray_on_hosts import AGENTS, BIN, RAYLET, join, leave, named, start_head

from run_store.record.run_status import run_status_of

pytestmark = [pytest.mark.needs("namespaces"), pytest.mark.timeout(1800)]

STEPS = 60
FEW_STEPS = 20
HEAD_AWAY_SECONDS = 20.0
TRAIN = [
    "cluster.placement=spread",
    "cluster.cpus_per_rank=1",
    "cluster.deadlines.answer_seconds=10",
    "engine.numerics=exact",
    "checkpoints.every_steps=5",
]


def check_bits(runs, exact_on_one_host, steps):
    assert runs.digests("run") == exact_on_one_host.digests("one-host")[:steps]
    assert runs.curve("run") == exact_on_one_host.curve("one-host")[:steps]


@pytest.mark.parametrize("names", Names, ids=lambda names: names.name.lower())
def test_hosts_train_together_whatever_their_names_resolve_to(
    names, environment, runs, orders, exact_on_one_host, tmp_path_factory
):
    """Four ranks on three hosts with two slots each must be spread unevenly."""
    with Hosts(3, names, shared=tmp_path_factory.getbasetemp()) as hosts:
        head = start_head(hosts, environment, cpus=2)
        join(hosts, 1, environment, cpus=2)
        join(hosts, 2, environment, cpus=2)
        train = [*TRAIN, "cluster.ranks=4", f"trainer.max_steps={FEW_STEPS}", "--address", head]
        command = [BIN / "transloom", "train", runs.recipe, *train]
        run = LabRun(hosts, 0, command, runs.folder / "run", orders, environment)
        run.end()
    assert sorted(run_status_of(run.folder.path).nodes.values()) == [1, 1, 2]
    assert run.world_sizes == [4]
    check_bits(runs, exact_on_one_host, FEW_STEPS)


def test_a_run_shrinks_and_grows_with_its_hosts(
    environment, runs, orders, exact_on_one_host, tmp_path_factory
):
    """3 ranks; 2 after a raylet is killed; 1 after a host crashes; 3 with both back; then 2."""
    with Hosts(3, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        head = start_head(hosts, environment, cpus=1)
        join(hosts, 1, environment)
        join(hosts, 2, environment)
        train = [*TRAIN, "cluster.ranks={min: 1, max: 3}", f"trainer.max_steps={STEPS}"]
        command = [BIN / "transloom", "train", runs.recipe, *train, "--address", head]
        run = LabRun(hosts, 0, command, runs.folder / "run", orders, environment)

        with run.standing_at(11):
            kill(hosts, 2, RAYLET)
            run.wait_for_word("resized from 3 to 2 ranks")
        with run.standing_at(22):
            hosts.crash(1)
            run.wait_for_word("resized from 2 to 1 rank")
        hosts.boot(1)
        with run.standing_at(33):
            leave(hosts, 2, environment)
            join(hosts, 1, environment)
            join(hosts, 2, environment)
            run.wait_for_word(
                "there is capacity for more ranks: the ranks leave after a checkpoint"
            )
        with run.standing_at(44):
            kill(hosts, 2, AGENTS)
            wait_until(lambda: not named(hosts, 2, RAYLET))
            run.wait_for_word("resized from 3 to 2 ranks", times=2)
        run.end()
    log = run.folder.log.read_text()
    assert log.count("is lost, which does not count as a failure") == 3
    assert run.world_sizes == [3, 2, 1, 3, 2]
    check_bits(runs, exact_on_one_host, STEPS)


def test_a_run_continues_while_network_cables_are_disconnected(
    environment, runs, orders, exact_on_one_host, tmp_path_factory
):
    """Disconnect the head for some time, then a host whose rank uses the shared storage."""
    with Hosts(3, Names.NONE, shared=tmp_path_factory.getbasetemp()) as hosts:
        head = start_head(hosts, environment, cpus=0)  # no rank and no data worker there
        join(hosts, 1, environment, cpus=2)
        join(hosts, 2, environment, cpus=2)
        train = [*TRAIN, "cluster.ranks={min: 1, max: 2}", "cluster.cpus_per_data_worker=0.5"]
        train += [f"trainer.max_steps={STEPS}", "--address", head]
        command = [BIN / "transloom", "train", runs.recipe, *train]
        run = LabRun(hosts, 1, command, runs.folder / "run", orders, environment)

        with run.standing_at(11):
            hosts.cut(0)
            since = time.monotonic()
            run.wait_for_word("Ray's head has not answered for 5 s")
        with run.standing_at(22):  # the ranks have trained meanwhile
            time.sleep(max(0.0, since + HEAD_AWAY_SECONDS - time.monotonic()))
            hosts.mend(0)
            run.wait_for_word("Ray's head answers again")
            lost_before = run.folder.log.read_text().count("is lost")
        with run.standing_at(33):
            hosts.cut(2)
            run.wait_for_word("resized from 2 to 1 rank")
        with run.standing_at(44):
            hosts.mend(2)
            leave(hosts, 2, environment)
            join(hosts, 2, environment, cpus=2)
            run.wait_for_word(
                "there is capacity for more ranks: the ranks leave after a checkpoint"
            )
        run.end()
    assert lost_before == 0
    assert "is lost, which does not count as a failure" in run.folder.log.read_text()
    assert run.world_sizes == [2, 1, 2]
    check_bits(runs, exact_on_one_host, STEPS)


def test_hosts_are_checked_before_ranks_start_and_when_they_return(
    environment, runs, orders, exact_on_one_host, tmp_path_factory
):
    """Hosts with wrong bits or a slow cable get no ranks; a host that returns is checked.

    The ranks measure the network and then train, so each process joins two groups.
    """
    with Hosts(4, Names.GOOD, shared=tmp_path_factory.getbasetemp()) as hosts:
        head = start_head(hosts, environment, cpus=1)
        join(hosts, 1, environment)
        join(hosts, 2, {**environment, "TRANSLOOM_SICK_NODE": "wrong-bits"})
        join(hosts, 3, environment)
        slow = "qdisc add dev eth0 root tbf rate 200mbit burst 64kbit latency 400ms"
        hosts.run(3, "tc", *slow.split(), env=environment)
        ranks = ["cluster.ranks={min: 1, max: 4}", "cluster.node_check=full"]
        train = [*TRAIN, *ranks, f"trainer.max_steps={STEPS}", "--address", head]
        command = [BIN / "transloom", "train", runs.recipe, *train]
        run = LabRun(hosts, 0, command, runs.folder / "run", orders, environment)
        with run.standing_at(11):
            hosts.crash(1)
            run.wait_for_word("resized from 2 to 1 rank")
        hosts.boot(1)
        with run.standing_at(22):
            join(hosts, 1, environment)
            run.wait_for_word("there is capacity for more ranks: the ranks leave")
        run.end()
    log = run.folder.log.read_text()
    sick, slow = hosts.addresses[2:]
    assert re.search(rf"Node {sick} \(\w+\) computes other bits .*, the 3 others of kind", log)
    assert re.search(
        rf"Node {slow} \(\w+\) has slow links .* \([\d.]+ MB/s; the median of 3 others: ", log
    )
    used = {name.split()[0] for name in run_status_of(run.folder.path).nodes}
    assert used == set(hosts.addresses[:2])
    assert len(re.findall(r"full check of 4 nodes in .*: 2 unfit", log)) == 1
    assert len(re.findall(r"full check of 1 node in .*: no problem", log)) == 1
    assert run.world_sizes == [2, 1, 2]
    check_bits(runs, exact_on_one_host, STEPS)


def kill(hosts, host, names):
    victims = named(hosts, host, names)
    assert victims, [command_of(process) for process in hosts.processes(host)]
    for process in victims:
        process.kill()
