"""States of a supervised run: their order and data, and that a stop request ends each wait."""

import time
from itertools import groupby
from types import SimpleNamespace

import pytest
from support.cluster.scripted_cluster import (
    DRIVER,
    FINISHED,
    NOTHING,
    lost,
    node,
    trained,
)

from cluster.errors import ClusterError, RankLostError
from cluster.ranks.agent_client import SilentNodesError
from cluster.ranks.group import Poll
from cluster.supervision.rank_jobs import RankStart
from cluster.supervision.run_states import (
    CheckNodes,
    EndAttempt,
    Ended,
    StartRanks,
    TrainRanks,
    WaitForCapacity,
)
from run_store.errors import DamagedCheckpointError
from run_store.record.run_status import read_status
from trainer.errors import NonFiniteLossError

WAIT, CHECK, START = "waiting_for_capacity", "checking_nodes", "starting_ranks"
TRAIN, END = "training", "ending"
ONE_ATTEMPT = [WAIT, CHECK, START, TRAIN, END]


@pytest.fixture
def states(scripted):
    """Return a function that runs scripts and returns the order of the states and the outcome."""

    def run(scripts, prepare=lambda run: None, **options):
        names = []
        with scripted(scripts, **options) as run:
            vitals = run.context.status
            begin = vitals.state_begins
            vitals.state_begins = lambda name: (names.append(name), begin(name))
            prepare(run)
            outcome = run.loop.run()
        return [name for name, _ in groupby(names)], outcome

    return run


def ask_to_stop(run):
    run.context.stop.reason = "SIGTERM was received"
    run.context.stop.asked_at = time.monotonic()


def test_a_run_passes_through_all_states(states):
    assert states([[NOTHING, FINISHED]]) == (ONE_ATTEMPT, "finished")


def test_lost_ranks_end_before_the_run_waits_for_capacity_again(states):
    scripts = [[NOTHING, lost()], [NOTHING, FINISHED]]
    assert states(scripts) == (ONE_ATTEMPT * 2, "finished")


def test_an_unfit_node_ends_ranks_that_have_not_started(states):
    def prepare(run):
        run.supply.problems = [["Node a lacks the folder"]]

    names, outcome = states([[], [NOTHING, FINISHED]], prepare)
    assert (names, outcome) == ([WAIT, CHECK, END, *ONE_ATTEMPT], "finished")


def test_nodes_that_do_not_answer_are_asked_again_before_ranks_start(states):
    def prepare(run):
        errors = [SilentNodesError("Node a has not answered")]

        def check_nodes(work, folder):
            if errors:
                raise errors.pop()
            return []

        run.supply.check_nodes = check_nodes

    names, _ = states([[], [NOTHING, FINISHED]], prepare)
    assert names == [WAIT, CHECK, END, *ONE_ATTEMPT]


def test_ranks_that_end_before_training_skip_the_training_state(states):
    def prepare(run):
        run.supply.is_training = False

    assert states([[NOTHING, FINISHED]], prepare)[0] == [WAIT, CHECK, START, END]


def test_ranks_that_stop_on_request_end_the_run(states):
    def prepare(run):
        run.supply.obeys = False
        polls = [trained(1), NOTHING, NOTHING, Poll([], outcomes=["stopped"])]
        start = run.supply.start_group

        def start_group(places, names):
            group = start(places, names)
            group._polls = iter(polls)
            group.wait = lambda seconds: ask_to_stop(run)
            return group

        run.supply.start_group = start_group

    names, outcome = states([[]], prepare)
    assert (names, outcome) == (ONE_ATTEMPT, "stopped")


@pytest.fixture
def loop(scripted):
    """Yield a run with its loop and one group of ranks."""
    with scripted([[NOTHING]], wait_for_ranks_seconds=0) as run:
        run.group = run.supply.start_group([DRIVER], {})
        run.names = {DRIVER: DRIVER}
        yield run


def test_enough_capacity_leads_to_the_node_check_with_the_data_of_the_wait(loop):
    loop.supply.start_group = lambda places, names: loop.group
    state = loop.loop._next(WaitForCapacity(nodes_left=True, damage_found=True))
    assert state == CheckNodes(loop.group, loop.names, True, True)


@pytest.mark.parametrize("nodes_left", [True, False])
def test_too_little_capacity_stops_a_run_only_if_its_nodes_have_left(loop, nodes_left):
    loop.supply.places = ()
    state = loop.loop._next(WaitForCapacity(nodes_left))
    if nodes_left:
        assert state == Ended("stopped")
    else:
        assert isinstance(state, EndAttempt)
        assert isinstance(state.error, ClusterError)


@pytest.mark.parametrize("damage_found", [True, False])
def test_the_supervisor_verifies_the_checkpoint_if_ranks_found_damage(loop, damage_found):
    state = loop.loop._next(CheckNodes(loop.group, loop.names, True, damage_found))
    start = RankStart(None, is_verified=damage_found)
    assert state == StartRanks(loop.group, loop.names, True, start)


def test_started_ranks_have_a_job(loop):
    state = loop.loop._next(StartRanks(loop.group, loop.names, True, RankStart(None)))
    assert isinstance(state, TrainRanks)
    assert loop.group.job.attempt == state.attempt.committer.attempt
    assert (loop.group.job.checkpoint, loop.group.job.verify_checkpoint) == (None, False)


def trained_ranks(loop, nodes_leave=False, memory=None):
    attempt = SimpleNamespace(nodes_leave=nodes_leave)
    return TrainRanks(loop.group, loop.names, RankStart(None, memory), attempt)


@pytest.mark.parametrize("nodes_leave", [True, False])
def test_the_next_wait_records_whether_nodes_have_left(loop, nodes_leave):
    end = EndAttempt(trained_ranks(loop, nodes_leave))
    assert loop.loop._next(end) == WaitForCapacity(nodes_leave)
    assert loop.supply.ended == 1


def test_nodes_that_left_are_remembered_if_the_next_ranks_never_train(loop):
    end = EndAttempt(CheckNodes(loop.group, loop.names, True, damage_found=True))
    assert loop.loop._next(end) == WaitForCapacity(nodes_left=True, damage_found=False)


def test_a_wait_that_ends_with_an_error_keeps_its_data(loop):
    before = WaitForCapacity(nodes_left=True, damage_found=True)
    lost = EndAttempt(before, error=RankLostError("a spare process has died"))
    assert loop.loop._next(lost) == before


def test_only_damage_on_the_disk_is_verified_at_the_next_start(loop):
    damage = DamagedCheckpointError("state-00000-of-00001 is damaged")
    in_memory = EndAttempt(trained_ranks(loop, memory=SimpleNamespace(step=5)), error=damage)
    on_disk = EndAttempt(trained_ranks(loop), error=damage)
    assert loop.loop._next(in_memory) == WaitForCapacity(damage_found=False)
    assert loop.loop._next(on_disk) == WaitForCapacity(damage_found=True)


def test_finished_ranks_end_the_run(loop):
    assert loop.loop._next(EndAttempt(trained_ranks(loop), "finished")) == Ended("finished")


@pytest.mark.parametrize("error", [NonFiniteLossError("3 in a row"), KeyboardInterrupt()])
def test_an_error_that_a_restart_cannot_fix_is_raised_after_the_ranks_end(loop, error):
    with pytest.raises(type(error)):
        loop.loop._next(EndAttempt(trained_ranks(loop), error=error))
    assert loop.supply.ended == 1


def test_an_error_in_any_state_ends_the_ranks_first(loop):
    def check_nodes(work, folder):
        raise RankLostError("the object store does not answer")

    loop.supply.check_nodes = check_nodes
    before = CheckNodes(loop.group, loop.names, False, False)
    end = loop.loop._next(before)
    assert (end.before, str(end.error)) == (before, "the object store does not answer")
    assert loop.supply.ended == 0
    assert loop.loop._next(end) == WaitForCapacity()
    assert any("restart 1 of this session" in text for text in loop.listener.notices)


def no_capacity(run):
    run.supply.offer = lambda nodes: ask_to_stop(run) or []


def no_placement(run):
    run.supply.start_group = lambda places, names: ask_to_stop(run)


def no_answer_of_the_head(run):
    def query_nodes(give_up):
        assert not give_up()
        ask_to_stop(run)
        assert give_up()
        return {DRIVER: node(DRIVER)}

    run.view.query_nodes = query_nodes


def no_data_workers(run):
    answers = iter([False])
    run.context.workers.all_responsive = lambda: ask_to_stop(run) or next(answers)
    run.supply.release_bundles = lambda: None


def no_answer_of_nodes(run):
    def check_nodes(work, folder):
        assert not run.supply.give_up()
        ask_to_stop(run)
        assert run.supply.give_up()
        return []

    run.supply.check_nodes = check_nodes


def no_end_of_the_hardware_check(run):
    def check_hardware(folders):
        ask_to_stop(run)
        assert run.supply.give_up()

    run.supply.check_hardware = check_hardware


def a_drain(run):
    run.supply.offer = lambda nodes: (
        run.view.before.update({DRIVER: SimpleNamespace(leaves_at=2e9)}) or []
    )


@pytest.mark.parametrize(
    ("wait", "names"),
    [
        (no_capacity, [WAIT]),
        (no_placement, [WAIT]),
        (no_answer_of_the_head, [WAIT]),
        (no_data_workers, [WAIT]),
        (a_drain, [WAIT]),
        (no_answer_of_nodes, [WAIT, CHECK, END]),
        (no_end_of_the_hardware_check, [WAIT, CHECK, END]),
    ],
)
def test_every_wait_ends_when_the_run_must_stop(states, wait, names):
    settings = {"cpus_per_data_worker": 1.0} if wait is no_data_workers else {}
    runs = []

    def prepare(run):
        runs.append(run)
        wait(run)

    assert states([[]], prepare, settings=settings) == (names, "stopped")
    assert all(group.job is None for group in runs[0].supply.groups)


def test_vitals_show_the_wait_of_a_run_that_has_no_ranks_yet(scripted):
    seen = []

    def offer(nodes):
        run.context.status._write(over=False)
        seen.append(read_status(run.context.run).vitals.supervisor_state)
        ask_to_stop(run)
        return []

    with scripted([]) as run:
        run.supply.offer = offer
        assert run.loop.run() == "stopped"
    assert seen == [WAIT]
    assert read_status(run.context.run).vitals.supervisor is None  # the owner has left
