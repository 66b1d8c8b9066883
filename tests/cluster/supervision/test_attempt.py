"""Supervise one group of ranks: growth, lost nodes, and the effects of reports."""

import itertools
import json
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
from support.cluster.scripted_cluster import (
    DRIVER,
    FINISHED,
    NOTHING,
    lost,
    node,
    trained,
    write_part,
)
from support.records.lines import validation_line

from cluster.data.workers import WorkerHandle, WorkerHeartbeat, WorkerMonitor, WorkerStatistics
from cluster.errors import RankHungError
from cluster.health.hang_detector import Position
from cluster.ranks.group import Poll
from cluster.ranks.reports import Detail, Notice, RecordedLine, StateFailed
from cluster.supervision.attempt import LEASE_CHECK_SECONDS, VITALS_SECONDS
from cluster.supervision.attempt_end import DRAIN_MARGIN_SECONDS, SCALE_UP_AFTER_SECONDS
from cluster.supervision.interval import Interval
from cluster.supervision.invocation import JOB_VARIABLE
from cluster.supervision.share_target import ShareTarget, share_file
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.errors import CheckpointError, LeaseLostError
from run_store.record.log import DETAIL
from run_store.record.metrics_lines import RankHung
from run_store.record.node_usage import Usage
from run_store.record.run_status import read_status

GROWABLE = {"min": 1, "max": 2}
NO_ERROR = nullcontext()


@pytest.fixture
def looks(monkeypatch):
    """Return the times at which data workers were polled; each worker has read 12 windows."""
    statistics = WorkerStatistics(process_id=1, node="0123abcd", windows_read=12)
    times = []

    def poll(self, handles, now):
        times.append(now)
        return [WorkerHeartbeat(handle.number, statistics, 0.5) for handle in handles]

    monkeypatch.setattr(WorkerMonitor, "poll", poll)
    return times


@pytest.fixture
def scripted(scripted, looks):
    return scripted


def test_ranks_do_not_leave_for_more_ranks_before_their_first_step(scripted):
    waiting = [NOTHING] * 100
    first = itertools.chain(waiting, [trained(1)], itertools.repeat(NOTHING))
    with scripted([first, [FINISHED]], ranks=GROWABLE, wait_seconds=1.0) as run:
        offered = iter([1])  # capacity for one rank at the start, for two afterwards
        run.supply.offer = lambda nodes: [DRIVER] * next(offered, 2)
        assert run.loop.run() == "finished"
    small, grown = run.supply.groups
    assert len(grown.nodes) == 2
    assert small.asked_to_stop_at >= len(waiting) + SCALE_UP_AFTER_SECONDS


def test_a_node_that_the_head_no_longer_lists_is_lost(scripted):
    with scripted([[lost()]], places=("a", "b"), ranks=2) as run:
        del run.view.now["a"]
        assert run.context.lost_nodes({DRIVER, "a", "b"}) == {"a"}


def test_a_node_with_a_silent_agent_is_lost_unless_it_is_the_driver_s(scripted):
    with scripted([[lost()]], places=("a", "b"), ranks=2) as run:
        run.supply.silent = {"b", DRIVER}
        assert run.context.lost_nodes({DRIVER, "a", "b"}) == {"b"}


def test_ranks_that_have_not_begun_leave_a_drained_node_at_once(scripted):
    with scripted([[NOTHING] * 3, [FINISHED]], places=["a"]) as run:
        run.supply.is_training = False
        stays, leaves = run.view.now, {"a": replace(run.view.now["a"], leaves_at=2e9)}
        start = run.supply.start_group

        def start_group(places, names):
            run.view.before = stays if run.supply.groups else stays | leaves
            return start(places, names)

        run.supply.start_group = start_group
        assert run.loop.run() == "finished"
    notices = "\n".join(run.listener.notices)
    assert "node a is being drained: the ranks leave before they have begun" in notices
    assert len(run.supply.groups) == 2


@pytest.mark.parametrize(
    ("more", "being_written"),
    [((), 2), ((StateFailed(2, "No space left on device"),), None)],
    ids=["under way", "failed"],
)
def test_vitals_show_a_pending_checkpoint_until_it_fails(scripted, more, being_written):
    reports = [(0, report) for report in (Position("save", 2), *more)]
    ending = (
        pytest.raises(CheckpointError, match="checkpoint, of step 2, could") if more else NO_ERROR
    )
    with scripted([[Poll(reports), FINISHED]]) as run, ending:
        run.loop.run()
    assert read_status(run.context.run).vitals.checkpoint_being_written == being_written
    said = "rank 0: No space left on device" in run.listener.notices
    assert said == bool(more)


class Workers:
    """Data workers that serve at once, up to the number `most`."""

    def __init__(self, most):
        self.most = most
        self.handles = [WorkerHandle(0, None)]
        self.actors = []
        self.offered = None

    def cancel_starting(self):
        return 0

    def windows_read_text(self):
        return "worker 0 has read 3 windows"

    def admit(self):
        pass

    def resize(self, count, nodes):
        self.offered = [one.id for one in nodes]
        granted = min(count, self.most)
        self.handles = [WorkerHandle(number, None) for number in range(granted)]
        return granted


def ask_to_stop(run, seconds_ago=0.0):
    run.context.stop.reason = "SIGTERM was received"
    run.context.stop.asked_at = time.monotonic() - seconds_ago


def test_reports_of_ranks_reach_the_listener_with_their_rank(scripted):
    reports = [(1, Notice("a shard is damaged")), (0, Detail("8 threads"))]
    with scripted([[Poll(reports), FINISHED]]) as run:
        run.loop.run()
    assert "rank 1: a shard is damaged" in run.listener.notices
    assert f"{DETAIL}rank 0: 8 threads" in run.listener.kept


def test_a_checkpoint_is_announced_after_all_ranks_have_written_their_parts(scripted):
    seen = []

    def polls():
        yield Poll([(0, Position("save", 2))])
        yield write_part(run, 2, 0, ranks=2)
        seen.append((run.context.status._being_written, len(list_checkpoints(checkpoints))))
        yield write_part(run, 2, 1, ranks=2)
        seen.append((run.context.status._being_written, len(list_checkpoints(checkpoints))))
        yield FINISHED

    with scripted([polls()], places=("a", "b"), ranks=2) as run:
        checkpoints = run.context.run.checkpoints
        assert run.loop.run() == "finished"
    assert seen == [(2, 0), (None, 1)]
    assert run.listener.notices.count("checkpoint of step 2 is complete") == 1


def test_a_part_that_arrives_with_the_outcome_completes_a_checkpoint(scripted):
    """The run ends only after this checkpoint."""
    events = []

    def polls():
        yield Poll(write_part(run, 2).reports, outcomes=["finished"])

    with scripted([polls()]) as run:
        run.context.stop.ignore_requests = lambda: events.append(
            len(list_checkpoints(run.context.run.checkpoints))
        )
        assert run.loop.run() == "finished"
    assert events == [1]


def test_a_step_that_several_ranks_failed_to_write_is_reported_once(scripted):
    failed = [StateFailed(2, "No space left on device")] * 2
    polls = [Poll([*enumerate(failed)]), FINISHED]
    ending = pytest.raises(CheckpointError)
    with scripted([polls], places=("a", "b"), ranks=2) as run, ending:
        run.loop.run()
    assert [text for text in run.listener.notices if "No space left" in text] == [
        "rank 0: No space left on device"
    ]


def test_stacks_of_ranks_are_saved_when_a_rank_hangs(scripted):
    hung = Poll([], failure=RankHungError("Rank 0 hangs"))
    with scripted([[hung], [FINISHED]]) as run:
        run.supply.stacks = lambda: {0: "in all_reduce"}
        assert run.loop.run() == "finished"
    (folder,) = run.context.run.stacks.iterdir()
    assert (folder / "rank-0.txt").read_text() == "in all_reduce"
    assert any("Rank 0 hangs. The stacks of all ranks" in text for text in run.listener.notices)


def test_a_hang_is_announced_and_recorded_by_the_next_ranks(scripted):
    """Each group records the hang until one has trained a step: a group that ends before may not
    have recorded it.
    """
    entry = {
        "process_group": ["0", "default_pg"],
        "collective_seq_id": 3,
        "profiling_name": "gloo:barrier",
    }
    waits = {"groups": {"0": [0, 1]}, "torch": {"entries": [entry]}}
    hung = Poll([], failure=RankHungError("Rank 0 hangs"))
    attempts = [[trained(2), hung], [lost()], [trained(2), lost()], [FINISHED]]
    with scripted(attempts, places=("a", "b"), ranks=2) as run:
        run.supply.collectives = lambda: {0: json.dumps(waits).encode()}
        assert run.loop.run() == "finished"
    said = "Rank 1 on b sent no record of collectives"
    assert any(text.startswith(said) and "gloo:barrier" in text for text in run.listener.notices)
    (event,) = (line for line in run.listener.lines if isinstance(line, RankHung))
    assert (event.step, event.hang_step) == (2, 5)
    recorded = [group.job.hang for group in run.supply.groups]
    assert [hang is not None for hang in recorded] == [False, True, True, False]
    assert recorded[1].text == event.text
    (folder,) = run.context.run.stacks.iterdir()
    assert json.loads((folder / "rank-0.collectives.json").read_text()) == waits


@pytest.mark.parametrize(
    ("seconds_ago", "leaves_in", "seconds"),
    [(0.0, None, 20.0), (15.0, None, 5.0), (0.0, 9.0, 9.0 - DRAIN_MARGIN_SECONDS)],
    ids=["request", "older request", "request and drain"],
)
def test_ranks_that_do_not_leave_in_time_are_killed(scripted, seconds_ago, leaves_in, seconds):
    def polls():
        yield trained(1)
        ask_to_stop(run, seconds_ago)
        if leaves_in is not None:
            drained = replace(run.view.before[DRIVER], leaves_at=time.time() + leaves_in)
            run.view.before[DRIVER] = drained
        yield from itertools.repeat(NOTHING)

    with scripted([polls()], settings={"grace_seconds": 20.0}) as run:
        run.supply.obeys = False
        assert run.loop.run() == "stopped"
    (group,) = run.supply.groups
    assert run.clock.now - group.asked_to_stop_at == pytest.approx(seconds, abs=0.5)
    assert group.times_asked_to_stop == 1
    assert run.supply.ended == 1
    said = [text for text in run.listener.notices if "leave" in text or "left" in text]
    assert said[0] == "SIGTERM was received: the ranks leave after a checkpoint"
    assert len(said) == 2 + (leaves_in is not None)
    assert said[-1].startswith("the ranks have not left in time and are killed")


def test_ranks_leave_only_if_a_node_of_the_ranks_or_of_the_driver_drains(scripted):
    def polls():
        run.view.before["other"] = replace(node("other"), leaves_at=2e9)
        yield trained(1)
        yield NOTHING
        assert run.supply.groups[0].asked_to_stop_at is None
        run.view.before[DRIVER] = replace(run.view.before[DRIVER], leaves_at=2e9)
        yield NOTHING

    with scripted([polls()], places=["a"]) as run:
        assert run.loop.run() == "stopped"
    (group,) = run.supply.groups
    assert group.asked_to_stop_at is not None
    leaving = [text for text in run.listener.notices if "is being drained" in text]
    assert leaving == [f"node {DRIVER} is being drained: the ranks leave after a checkpoint"]


def test_the_reason_why_ranks_left_is_the_cause_of_the_restart(scripted):
    def polls():
        yield trained(1)
        run.view.before["a"] = replace(run.view.before["a"], leaves_at=2e9)
        yield NOTHING
        run.supply.places = ["b"]
        yield NOTHING

    with scripted([polls(), [FINISHED]], places=["a"]) as run:
        run.view.before["b"] = run.view.now["b"] = node("b")
        assert run.loop.run() == "finished"
    assert [one.cause for one in read_status(run.context.run).vitals.restarts] == [
        "node a is being drained"
    ]


@pytest.mark.parametrize(
    ("ranks", "offered", "grows"),
    [({"min": 1, "max": 2}, 2, True), ({"min": 1, "max": 2}, 1, False), (1, 2, False)],
    ids=["room", "no room", "at its most"],
)
def test_ranks_leave_for_growth_only_if_more_may_start(scripted, ranks, offered, grows):
    first = [trained(1), *[NOTHING] * 3 * int(SCALE_UP_AFTER_SECONDS), FINISHED]
    with scripted([first, [FINISHED]], ranks=ranks, wait_seconds=1.0) as run:
        places = iter([1])
        run.supply.offer = lambda nodes: [DRIVER] * next(places, offered)
        assert run.loop.run() == "finished"
    assert len(run.supply.groups) == 1 + grows
    said = "there is capacity for more ranks: the ranks leave after a checkpoint"
    assert (said in run.listener.notices) == grows


@pytest.mark.parametrize(
    ("target", "begins", "ranks", "seconds"),
    [
        (ShareTarget(ranks=1, reason="b waits"), 2, 1, 0.0),
        (ShareTarget(ranks=0, reason="b waits"), 2, 1, 0.0),  # a run keeps its smallest number
        (ShareTarget(ranks=9, grows_at_once=True, reason="b has ended"), 1, 2, 0.0),
        (ShareTarget(ranks=2, reason="a node is new"), 1, 2, SCALE_UP_AFTER_SECONDS),
    ],
)
def test_the_number_of_ranks_follows_the_target_of_their_job(
    scripted, tmp_path, monkeypatch, target, begins, ranks, seconds
):
    monkeypatch.setenv(JOB_VARIABLE, "mine")
    (file := share_file(tmp_path / "run", "mine")).parent.mkdir(parents=True)
    jobs = []

    def polls():
        file.write_text(target.model_dump_json())
        run.context.share._reads = Interval(0.0)
        yield trained(1)
        yield from itertools.repeat(NOTHING)

    with scripted([polls(), [FINISHED]], ranks=GROWABLE, wait_seconds=1.0) as run:
        places = iter([begins])
        run.supply.offer = lambda nodes: [DRIVER] * next(places, min(2, run.supply.max_ranks()))
        make = run.loop._jobs.job
        monkeypatch.setattr(
            type(run.loop._jobs), "job", lambda self, *given: jobs.append(given) or make(*given)
        )
        assert run.loop.run() == "finished"
    first, second = run.supply.groups
    assert (len(first.nodes), len(second.nodes)) == (begins, ranks)
    assert seconds <= first.asked_to_stop_at <= seconds + 20
    assert target.reason in jobs[1][-1]  # the reason of the event
    assert any(text.startswith(f"{target.reason}: ") for text in run.listener.notices)


def test_a_run_taken_over_by_another_owner_ends_at_the_next_lease_check(scripted):
    seconds = 2 * int(LEASE_CHECK_SECONDS)
    with scripted([[trained(1), *[NOTHING] * seconds]], wait_seconds=1.0) as run:
        taken = run.context.run.path / "owners" / "00000099.json"
        checks, check = [], run.context.lease.check

        def observed():
            checks.append(run.clock.now)
            if len(checks) == 2:  # after the checks at the start of the attempt and of its loop
                raise OSError("the file system is away")
            if len(checks) == 3:
                taken.write_text("{}")
            check()

        run.context.lease.check = observed
        with pytest.raises(LeaseLostError, match="is now owned by an unknown process"):
            run.loop.run()
        taken.unlink()
    assert checks[2] - checks[1] == LEASE_CHECK_SECONDS


def test_data_workers_are_added_on_request_of_the_control_file(scripted):
    def polls():
        yield trained(1)
        run.context.run.request_data_workers(5)
        yield from [NOTHING] * 10
        yield FINISHED

    with scripted([polls()], wait_seconds=0.5) as run:
        workers = Workers(most=3)
        run.loop._context = replace(run.context, workers=workers)
        run.view.before |= {"b": node("b"), "c": replace(node("c"), leaves_at=2e9)}
        assert run.loop.run() == "finished"
    assert sorted(workers.offered) == sorted(["b", DRIVER])
    assert run.supply.groups[0].workers == workers.handles
    start = run.listener.notices.index("worker 0 has read 3 windows")
    assert run.listener.notices[start + 1 : start + 4] == [
        "requested: 5 data workers; now: 1",
        "free CPUs suffice for 3 data workers only",
        "data workers are now 0, 1, 2",
    ]
    assert not run.context.run.data_workers_request.exists()


def test_a_granted_request_for_data_workers_reports_no_shortage(scripted):
    def polls():
        run.context.run.request_data_workers(2)
        yield trained(1)
        yield FINISHED

    with scripted([polls()]) as run:
        run.loop._context = replace(run.context, workers=Workers(most=2))
        assert run.loop.run() == "finished"
    assert "data workers are now 0, 1" in run.listener.notices
    assert not any("only" in text for text in run.listener.notices)


def test_data_workers_that_start_later_are_passed_to_the_ranks(scripted):
    newcomer = WorkerHandle(7, None)
    with scripted([[trained(1), NOTHING, NOTHING, FINISHED]]) as run:
        workers = Workers(most=1)
        before = list(workers.handles)
        arrivals = iter([[], [newcomer]])
        workers.admit = lambda: workers.handles.extend(next(arrivals, []))
        run.loop._context = replace(run.context, workers=workers)
        assert run.loop.run() == "finished"
    assert run.supply.groups[0].workers == [*before, newcomer]
    assert run.listener.notices.count("data workers are now 0, 7") == 1


def test_vitals_of_ranks_and_workers_are_written_every_two_seconds(scripted, looks):
    polls = [trained(1), *[NOTHING] * 10, FINISHED]
    with scripted([polls], wait_seconds=0.5) as run:
        run.view.before["0123abcd99"] = replace(node("0123abcd99"), name="far away")
        run.loop._context = replace(run.context, workers=Workers(most=1))
        assert run.loop.run() == "finished"
    vitals = read_status(run.context.run).vitals
    assert [(rank.phase, rank.step) for rank in vitals.ranks] == [("step", 5)]
    assert [(one.node, one.windows_read) for one in vitals.data_workers] == [("far away", 12)]
    assert {after - before for before, after in itertools.pairwise(looks)} == {VITALS_SECONDS}


def test_samples_of_nodes_contain_the_furthest_step(scripted):
    usage = Usage(cpu_percent=50.0, memory_used_bytes=1, memory_bytes=2)
    second = [trained(1), NOTHING, trained(3), NOTHING, FINISHED]
    scripts = [[trained(1), trained(2), lost()], second]
    with scripted(scripts, settings={"node_usage_seconds": 1e-6}) as run:
        asked = []
        run.supply.ask_usage = lambda: asked.append(run.clock.now)
        run.supply.usage = lambda: {"a": usage}
        assert run.loop.run() == "finished"
    steps = [json.loads(line)["step"] for line in run.context.run.nodes.read_text().splitlines()]
    assert steps == [1, 2, 2, 2, 3, 3]
    assert len(asked) == len(steps)


def test_validation_lines_are_shown_but_do_not_count_as_progress(scripted):
    validated = Poll([(0, RecordedLine(validation_line(9)))])
    scripts = [[trained(1), validated, lost()], [trained(1), trained(2), FINISHED]]
    with scripted(scripts) as run:
        lines = []
        run.listener.line = lines.append
        assert run.loop.run() == "finished"
    assert [line.step for line in lines] == [1, 9, 1, 2]
    assert run.loop._losses.furthest_step == 2
