"""Losses that a run survives, and errors when its ranks do not fit."""

import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
from support.cluster.scripted_cluster import (
    DRIVER,
    FINISHED,
    lost,
    save_step,
    scripted_run,
    trained,
    write_memory,
    write_part,
)

from cluster.config import ClusterConfig
from cluster.data.workers import WorkerHandle
from cluster.errors import ClusterError, RankLostError
from cluster.health.unfit_nodes import UnfitNodes
from cluster.node_check.figures import MeasuredNode
from cluster.node_check.verdicts import NodeCheckReport, NodeVerdict
from cluster.ranks.agent_client import SilentNodesError
from cluster.ranks.group import Poll
from cluster.ray.cluster_view import Node
from cluster.supervision import restart_loop
from cluster.supervision.restart_loop import (
    RestartLoop,
    excluded_nodes_text,
    missing_capacity_text,
    no_capacity_error,
)
from cluster.supervision.retry_budget import ATTEMPTS_WITHOUT_PROGRESS
from cluster.supervision.run_listener import NODE_EXCLUDED
from data_pipeline.batching.plan import Cursor
from run_store.checkpoints.memory_file import MemorySteps
from run_store.errors import CheckpointError, DamagedCheckpointError, LeaseLostError
from run_store.folder import StepRange
from run_store.record.log import DETAIL
from run_store.record.run_status import run_status_of
from trainer.errors import NonFiniteLossError
from trainer.job.rank_job import ReplayOptions

LACKS = "Node b does not have the run's folder /runs/x. Share it, with --run PATH"


def test_the_cluster_s_resources_are_named_when_the_wait_for_capacity_times_out():
    config = ClusterConfig(ranks=3, wait_for_ranks_seconds=20)
    nodes = {name: Node(name, name, {"CPU": 1.0}, {"CPU": 4.0}, None) for name in "ab"}
    said = str(no_capacity_error("there is capacity for 2 ranks", config, nodes, UnfitNodes()))
    assert said.startswith(
        "After 20 s there is capacity for 2 ranks, each with 1 CPU and 0 GPUs. The cluster has 8 "
        "CPUs and 0 GPUs in total"
    )


def test_unfit_nodes_are_named_when_the_wait_for_capacity_times_out():
    unfit = UnfitNodes()
    unfit.add("b", "Node b computes other products", "digest 0f…, the others 1a…")
    nodes = {name: Node(name, name, {"CPU": 4.0}, {"CPU": 4.0}) for name in "ab"}
    config = ClusterConfig(ranks=5)
    said = str(no_capacity_error("there is capacity for 4 ranks", config, nodes, unfit))
    assert "Not used: Node b computes other products (digest 0f…, the others 1a…). Wait" in said


def test_the_resources_of_nodes_that_can_never_hold_the_ranks_are_reported():
    config = ClusterConfig(ranks=3, resources_per_rank={"rack_a": 1}, node_labels={"pool": "big"})
    nodes = {
        "a": Node("a", "a", {}, {"CPU": 4.0, "rack_a": 2.0}, labels={"pool": "big"}),
        "b": Node("b", "b", {}, {"CPU": 9.0, "rack_a": 9.0}, labels={"pool": "small"}),
    }
    told = (
        ". Its nodes can never hold more than 2 ranks with 1 CPU, 0 GPUs and rack_a 1, on a node "
        "with the labels pool=big: a has CPU 4, GPU 0, rack_a 2 and pool=big labels; b has CPU 9, "
        "GPU 0, rack_a 9 and pool=small labels"
    )
    assert missing_capacity_text(config, nodes) == told
    assert told in str(
        no_capacity_error("there is capacity for 0 ranks", config, nodes, UnfitNodes())
    )
    fewer = config.model_copy(update={"ranks": 2})
    assert missing_capacity_text(fewer, nodes) == ""  # other jobs may use the resources now


def test_a_run_continues_without_a_node_that_lacks_its_folder():
    (notice,) = excluded_nodes_text([LACKS], room=2, min_ranks=2)
    assert notice == f"{LACKS}. The run does not use this node in this session"


def test_a_run_without_enough_other_nodes_ends_and_names_the_node():
    room = "The other nodes have capacity for 1 rank, but the run needs at least 2"
    with pytest.raises(ClusterError, match=f"^{LACKS}. {LACKS}. {room}$"):
        excluded_nodes_text([LACKS, LACKS], room=1, min_ranks=2)


def test_losses_with_progress_between_them_do_not_end_a_run(phrasebook, tmp_path, monkeypatch):
    scripts = [[trained(step), lost()] for step in range(1, 6)] + [[FINISHED]]
    with scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch) as scripted:
        assert scripted.loop.run() == "finished"
    assert len(scripted.supply.groups) == 6


def test_three_losses_without_progress_end_a_run(phrasebook, tmp_path, monkeypatch):
    scripts = [[trained(2), lost()], [trained(1), lost()], [trained(2), lost()], [lost()]]
    with (
        scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch) as scripted,
        pytest.raises(RankLostError, match=r"no further than step 2 in 3 attempts"),
    ):
        scripted.loop.run()
    assert len(scripted.supply.groups) == 4


def test_a_lost_node_does_not_count_against_the_run(phrasebook, tmp_path, monkeypatch):
    scripts = [[lost()], [lost()], [lost()], [FINISHED]]
    places = ("a", "b")
    with scripted_run(
        phrasebook, tmp_path / "run", scripts, monkeypatch, places=places, ranks=2
    ) as scripted:
        scripted.supply.silent = {"a"}
        assert scripted.loop.run() == "finished"
    assert "node a is lost" in "\n".join(scripted.listener.notices)


def test_all_attempts_of_a_session_have_its_start_time(phrasebook, tmp_path, monkeypatch):
    scripts = [[trained(1), lost()], [trained(2), lost()], [FINISHED]]
    before = time.time()
    with scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch) as scripted:
        made = time.time()
        scripted.loop.run()
    jobs = [group.job for group in scripted.supply.groups]
    (started,) = {job.session_started for job in jobs}
    assert before <= started <= made
    assert len({job.attempt for job in jobs}) == 3


@pytest.mark.parametrize("drained", [True, False])
def test_a_run_stops_if_its_nodes_drain_and_fails_if_they_are_lost(
    phrasebook, tmp_path, monkeypatch, drained
):
    script = [trained(1)] if drained else [trained(1), lost()]
    ending = nullcontext() if drained else pytest.raises(ClusterError, match="capacity for 0 rank")
    with scripted_run(
        phrasebook, tmp_path / "run", [script], monkeypatch, places=["a"], wait_for_ranks_seconds=0
    ) as scripted:
        offered = iter([["a"]])
        scripted.supply.offer = lambda nodes: next(offered, [])
        if drained:
            scripted.view.before["a"] = replace(scripted.view.before["a"], leaves_at=2e9)
        with ending:
            assert scripted.loop.run() == "stopped"
    left = "there is capacity for 0 ranks, but the run needs at least 1: the run leaves"
    assert (left in scripted.listener.notices) == drained


def test_ranks_start_only_where_the_run_has_its_folder(phrasebook, tmp_path, monkeypatch):
    ranks = {"min": 1, "max": 2}
    with scripted_run(
        phrasebook, tmp_path / "run", [[], [FINISHED]], monkeypatch, places=["a", "b"], ranks=ranks
    ) as scripted:
        offered = iter([["a", "b"]])  # node b is not offered after it was found unfit
        scripted.supply.offer = lambda nodes: next(offered, ["a"])
        scripted.supply.problems = [[LACKS]]
        assert scripted.loop.run() == "finished"
    unfit, fit = scripted.supply.groups
    assert unfit.job is None
    assert fit.nodes == ["a"]
    assert fit.job.checkpoint is None
    assert f"{LACKS}. The run does not use this node in this session" in scripted.listener.notices


def test_spares_start_after_lost_steps_are_trained_again(phrasebook, tmp_path, monkeypatch):
    scripts = [[trained(1), trained(2), lost()], [*map(trained, (1, 2, 3, 4)), FINISHED]]
    with scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch) as scripted:
        events = []
        scripted.listener.line = lambda line: events.append(line.step)
        scripted.supply.refill_spares = lambda: events.append("spares")
        assert scripted.loop.run() == "finished"
    assert events == [1, "spares", 2, 1, 2, 3, "spares", 4]


def test_ranks_start_from_the_newest_checkpoint(scripted):
    with scripted([[FINISHED]], places=("a", "a", "b"), ranks=3) as run:
        save_step(run, 5)
        path = save_step(run, 7)
        run.context.workers.handles = [WorkerHandle(0, None)]
        assert run.loop.run() == "finished"
    (group,) = run.supply.groups
    job, folder = group.job, run.context.run
    assert "starting 3 ranks from the checkpoint of step 7" in run.listener.notices
    assert (job.checkpoint, job.run) == (path.absolute(), folder.path.absolute())
    assert job.work == run.context.lease.work.absolute()
    assert job.cursor == Cursor(0, 0, 7)
    assert job.manifest == run.manifest.header()
    assert job.manifest.identity == run.manifest.identity
    assert (job.profile, job.replay, job.warm_start) == (None, None, None)
    assert group.workers == run.context.workers.handles
    assert run.supply.ended == 1
    assert run_status_of(folder.path).nodes == {"a": 2, "b": 1}
    assert [rank.node for rank in run_status_of(folder.path).vitals.ranks] == ["a", "a", "b"]


DAMAGED = Poll([], failure=DamagedCheckpointError("state-00000-of-00001 is damaged"))


def test_a_checkpoint_that_ranks_find_damaged_is_set_aside(scripted):
    with scripted([[DAMAGED], [trained(6), lost()], [FINISHED]]) as run:
        older, newer = save_step(run, 5), save_step(run, 7)
        (state,) = newer.glob("state-*")
        data = bytearray(state.read_bytes())
        data[-1] ^= 1  # the size stays the same, so only the hash differs
        state.write_bytes(data)
        assert run.loop.run() == "finished"
    jobs = [group.job for group in run.supply.groups]
    assert [job.checkpoint for job in jobs] == [newer, older, older]
    # Ranks hash the checkpoint that they start from, unless the driver has just hashed it.
    assert [job.verify_checkpoint for job in jobs] == [True, False, True]
    assert newer.with_name(f"damaged-{newer.name}").exists()
    assert any("was renamed to damaged-step-00000007" in text for text in run.listener.notices)


def test_damage_of_the_only_checkpoint_ends_the_run(scripted):
    with scripted([[DAMAGED], []]) as run:
        only = save_step(run, 5)
        (state,) = only.glob("state-*")
        state.write_bytes(bytes(state.stat().st_size))
        with pytest.raises(CheckpointError, match="No checkpoint of"):
            run.loop.run()
    assert state.exists()


def test_the_ranks_get_the_profile_and_replay_options(scripted, tmp_path):
    profile, replay = StepRange(3, 4), ReplayOptions(tmp_path)
    with scripted([[FINISHED]]) as run:
        loop = RestartLoop(run.recipe, run.manifest, run.context, profile, replay)
        assert loop.run() == "finished"
    job = run.supply.groups[0].job
    assert (job.profile, job.replay) == (profile, replay)
    assert not job.verify_checkpoint  # a replay expects a verified checkpoint


def test_repeated_steps_up_to_the_checkpoint_are_no_progress(scripted):
    scripts = [[trained(6), lost()], [trained(7), lost()], [trained(7), lost()]]
    ending = pytest.raises(RankLostError, match="no further than step 7 in 3 attempts")
    with scripted(scripts) as run, ending:
        save_step(run, 7)
        run.loop.run()


def test_a_new_checkpoint_is_progress_without_a_recorded_step(scripted):
    """A loss can occur after the report of a checkpoint and before that of its step."""

    def polls():
        yield write_part(run, 4)
        yield lost()

    with scripted([[lost()], [lost()], polls(), [lost()], [lost()], [FINISHED]]) as run:
        assert run.loop.run() == "finished"
    assert "starting 1 rank from the checkpoint of step 4" in run.listener.notices


@pytest.mark.parametrize("leaves", ["by request", "by drain"])
def test_a_run_that_must_stop_starts_no_ranks(scripted, leaves):
    with scripted([[FINISHED]]) as run:
        if leaves == "by request":
            run.context.stop.reason = "SIGTERM was received"
        else:
            run.view.before[DRIVER] = replace(run.view.before[DRIVER], leaves_at=2e9)
        assert run.loop.run() == "stopped"
    assert run.supply.groups == []


@pytest.mark.parametrize("event", ["cancel_starting", "check_nodes"])
def test_a_stop_request_during_the_start_of_ranks_is_obeyed(scripted, event):
    with scripted([[FINISHED]]) as run:
        owner = run.context.workers if event == "cancel_starting" else run.supply

        def ask(*arguments):
            run.context.stop.reason = "SIGTERM was received"
            run.context.stop.asked_at = time.monotonic()

        setattr(owner, event, ask)
        assert run.loop.run() == "stopped"
    assert run.supply.groups[0].job is None
    assert run.supply.ended == 1
    assert any("starting 1 rank" in text for text in run.listener.notices) == (
        event == "check_nodes"
    )


def test_waiting_for_capacity_is_reported_once(scripted):
    offers = iter([[], ["a"], ["a"]])
    with scripted([[FINISHED]], places=("a", "b"), ranks=2) as run:
        run.supply.offer = lambda nodes: next(offers, ["a", "b"])
        assert run.loop.run() == "finished"
    waiting = [text for text in run.listener.notices if "waiting" in text]
    assert waiting == [
        "there is capacity for 0 ranks, but the run needs at least 2: waiting for up to 600 s"
    ]
    assert run.supply.groups[0].nodes == ["a", "b"]


def test_bundles_that_are_not_placed_are_requested_again(scripted):
    with scripted([[FINISHED]], places=("a", "b"), ranks=2) as run:
        start, calls = run.supply.start_group, []

        def start_group(places, names):
            calls.append((places, names))
            return start(places, names) if len(calls) == 3 else None

        run.supply.start_group = start_group
        assert run.loop.run() == "finished"
    assert len(calls) == 3
    assert calls[0] == (["a", "b"], {DRIVER: DRIVER, "a": "a", "b": "b"})
    said = [text for text in run.listener.notices if "Ray has not placed 2 ranks" in text]
    assert len(said) == 1


def test_bundles_that_are_never_placed_end_the_run(scripted):
    ending = pytest.raises(ClusterError, match="After 0 s Ray has not placed 1 rank")
    with scripted([], wait_for_ranks_seconds=0) as run, ending:
        run.supply.start_group = lambda places, names: None
        run.loop.run()


def test_a_change_of_the_number_of_ranks_is_reported(scripted):
    scripts = [[trained(1), lost()], [trained(2), lost()], [FINISHED]]
    with scripted(scripts, places=("a", "b"), ranks={"min": 1, "max": 2}) as run:
        offers = iter([["a"], ["a", "b"]])
        run.supply.offer = lambda nodes: next(offers, ["a", "b"])
        assert run.loop.run() == "finished"
    assert [text for text in run.listener.notices if "resized" in text] == [
        "resized from 1 to 2 ranks"
    ]


def test_the_cause_of_a_loss_is_logged_and_recorded_with_the_restart(scripted):
    error = RankLostError("Rank 0 has failed")
    error.__cause__ = ValueError("the traceback on its node")
    with scripted([[Poll([], failure=error)], [FINISHED]]) as run:
        assert run.loop.run() == "finished"
    assert "Rank 0 has failed; restart 1 of this session" in run.listener.notices
    assert "the traceback on its node" in run.listener.kept
    assert [one.cause for one in run_status_of(run.context.run.path).vitals.restarts] == [
        "Rank 0 has failed"
    ]


def test_an_error_that_a_restart_would_repeat_ends_the_run(scripted):
    error = NonFiniteLossError("3 steps in a row")
    with scripted([[Poll([], failure=error)]]) as run, pytest.raises(NonFiniteLossError):
        run.loop.run()
    assert len(run.supply.groups) == run.supply.ended == 1


@pytest.mark.parametrize(("given_up", "said"), [(0, None), (1, "1 data worker"), (2, "2 data")])
def test_data_workers_that_do_not_start_in_time_yield_to_ranks(scripted, given_up, said):
    with scripted([[FINISHED]]) as run:
        run.context.workers.cancel_starting = lambda: given_up
        run.context.workers.windows_read_text = lambda: "worker 0 has read 12 windows"
        assert run.loop.run() == "finished"
    notices = [text for text in run.listener.notices if "did not start in time" in text]
    assert len(notices) == bool(said)
    assert all(text.startswith(said) for text in notices)
    assert run.listener.kept[-1] == f"{DETAIL}worker 0 has read 12 windows"


@pytest.mark.parametrize(("cpus", "answers"), [(0.0, None), (1.0, 3), (1.0, None)], ids=str)
def test_bundles_are_released_until_data_workers_are_placed(scripted, monkeypatch, cpus, answers):
    monkeypatch.setattr(restart_loop, "WORKERS_SECONDS", 600.0 if answers else 0.0)
    with scripted([[FINISHED]], settings={"cpus_per_data_worker": cpus}) as run:
        asked, given_back = [], []
        run.supply.release_bundles = lambda: given_back.append(len(asked))

        def all_responsive():
            asked.append(None)
            return len(asked) == answers

        run.context.workers.all_responsive = all_responsive
        assert run.loop.run() == "finished"
    if not cpus:
        assert asked == []
    elif answers:
        assert given_back == [1, 2]
    late = [text for text in run.listener.notices if "not all data workers have started" in text]
    assert len(late) == (bool(cpus) and not answers)


def test_the_run_ends_if_too_few_nodes_are_fit(scripted):
    ending = pytest.raises(ClusterError, match=LACKS)
    with scripted([[]], places=("a", "b"), ranks=2) as run, ending:
        offers = iter([["a", "b"]])
        run.supply.offer = lambda nodes: next(offers, ["a"])
        checked = []
        run.supply.check_nodes = lambda *folders: checked.append(folders) or [LACKS]
        run.loop.run()
    (folders,) = checked
    assert folders == (run.context.lease.work.absolute(), run.context.run)
    assert run.supply.groups[0].job is None


def test_nodes_that_do_not_answer_are_asked_again_without_limit(scripted):
    silences = 2 * ATTEMPTS_WITHOUT_PROGRESS
    with scripted([[]] * silences + [[FINISHED]], places=("a",)) as run:
        answers = [SilentNodesError("Node a has not answered")] * silences

        def check_nodes(work, folder):
            if answers:
                raise answers.pop()
            return []

        run.supply.check_nodes = check_nodes
        assert run.loop.run() == "finished"
    asked = [text for text in run.listener.notices if "Node a has not answered" in text]
    assert len(asked) == silences


def test_nodes_that_do_not_answer_are_named_when_the_wait_for_capacity_ends(scripted):
    with scripted([], places=("a", "b"), ranks=2, wait_for_ranks_seconds=0) as run:
        run.supply.silent = {"b"}
        run.supply.offer = lambda nodes: ["a"]
        with pytest.raises(ClusterError, match=r"capacity for 1 rank.*Without an answer: b; check"):
            run.loop.run()


def checked(*verdicts):
    """Return the report of a check of two nodes with these verdicts."""
    nodes = {name: MeasuredNode(name) for name in "ab"}
    return NodeCheckReport("quick", nodes, ("a", "b"), verdicts, 1.25, ("the clock is wrong",))


SLOW = NodeVerdict("b", "Node b is slow", "3 GFLOP/s; the other: 90 GFLOP/s")
LATE = NodeVerdict("a", "The clock of node a is wrong", "+2.00 s", fails=False)


def test_ranks_restart_without_a_node_that_fails_the_check(scripted):
    with scripted([[], [FINISHED]], places=("a", "b"), ranks={"min": 1, "max": 2}) as run:
        run.supply.reports = [checked(SLOW, LATE)]
        offered = iter([["a", "b"]])
        run.supply.offer = lambda nodes: next(offered, ["a"])
        assert run.loop.run() == "finished"
    assert [bool(group.job) for group in run.supply.groups] == [False, True]
    notices = run.listener.notices
    assert f"{SLOW.text}. {NODE_EXCLUDED}" in notices
    assert LATE.text in notices
    assert "the clock is wrong" in notices
    assert "quick check of 2 nodes in 1.2 s: 1 unfit, 1 with a warning" in notices


def test_warnings_of_a_node_check_do_not_end_an_attempt(scripted):
    with scripted([[FINISHED]], places=("a", "b"), ranks=2) as run:
        run.supply.reports = [checked(LATE)]
        assert run.loop.run() == "finished"
    assert run.supply.groups[0].job is not None


def test_the_run_ends_if_too_few_nodes_pass_the_check(scripted):
    ending = pytest.raises(ClusterError)
    with scripted([[]], places=("a", "b"), ranks=2) as run, ending as error:
        run.supply.reports = [checked(SLOW)]
        offers = iter([["a", "b"]])
        run.supply.offer = lambda nodes: next(offers, ["a"])
        run.loop.run()
    assert str(error.value) == (
        f"{SLOW.text}. The other nodes have capacity for 1 rank, but the run needs at least 2. "
        "Repair or replace the nodes, lower cluster.ranks, or train on all nodes regardless with "
        "cluster.node_check=off"
    )


def test_a_run_taken_over_by_another_owner_restarts_no_ranks(scripted):
    with scripted([[trained(1), lost()], [FINISHED]]) as run:
        taken = run.context.run.path / "owners" / "00000099.json"
        run.supply.unresponsive_nodes = lambda nodes: taken.write_text("{}") and set()
        with pytest.raises(LeaseLostError):
            run.loop.run()
        taken.unlink()
    assert run.supply.groups[1].job is None


def test_lost_ranks_restart_from_memory_if_it_has_a_newer_step_than_the_disk(scripted):
    def first():
        yield trained(8)
        yield write_memory(run, 8)
        yield lost()

    with scripted([first(), [FINISHED]], memory_every_steps=4) as run:
        on_disk = save_step(run, 5)
        assert run.loop.run() == "finished"
    before, after = (group.job for group in run.supply.groups)
    assert (before.checkpoint, before.memory_checkpoint) == (on_disk, None)
    assert after.memory_checkpoint.step == 8
    assert after.memory_name == before.memory_name is not None
    assert run.supply.groups[0].memory_steps == MemorySteps(8, 8)
    assert "starting 1 rank from the memory checkpoint of step 8" in run.listener.notices
    assert run_status_of(run.context.run.path).vitals.memory_checkpoint == 8


def test_ranks_restart_from_the_disk_if_it_has_the_newer_step(scripted):
    def first():
        yield trained(8)
        yield write_memory(run, 8)
        yield write_part(run, 9)
        yield lost()

    with scripted([first(), [FINISHED]], memory_every_steps=4) as run:
        assert run.loop.run() == "finished"
    job = run.supply.groups[1].job
    assert job.memory_checkpoint is None
    assert job.checkpoint.name == "step-00000009"


def test_damage_in_memory_makes_the_run_restart_from_the_disk(scripted):
    def first():
        yield trained(8)
        yield write_memory(run, 8)
        yield lost()

    with scripted([first(), [DAMAGED], [FINISHED]], memory_every_steps=4) as run:
        on_disk = save_step(run, 5)
        assert run.loop.run() == "finished"
    last = run.supply.groups[-1].job
    assert (last.checkpoint, last.memory_checkpoint, last.verify_checkpoint) == (
        on_disk,
        None,
        True,
    )
    assert any("The checkpoint on disk will be used" in text for text in run.listener.notices)


def test_without_the_setting_no_checkpoint_is_kept_in_memory(scripted):
    with scripted([[FINISHED]]) as run:
        assert run.loop.run() == "finished"
    assert run.supply.groups[0].job.memory_name is None
