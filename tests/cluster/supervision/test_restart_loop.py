"""Which losses a run survives, and what it says where there is no room for its ranks."""

import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
from support.cluster.scripted_cluster import FINISHED, lost, scripted_run, trained

from cluster.config import ClusterConfig
from cluster.errors import ClusterError, RankLostError
from cluster.ray.cluster_view import Node
from cluster.supervision.restart_loop import going_without, never_enough, no_room

LACKS = "Node b does not have the run's folder /runs/x. Share it, with --run PATH"


def test_what_the_cluster_has_is_said_when_room_was_waited_for_in_vain():
    config = ClusterConfig(ranks=3, wait_for_ranks_seconds=20)
    nodes = {name: Node(name, name, {"CPU": 1.0}, {"CPU": 4.0}, None) for name in "ab"}
    said = str(no_room("there is room for 2 ranks", config, nodes))
    assert said.startswith(
        "After 20 s there is room for 2 ranks, each with 1 CPU and 0 GPUs. The cluster has 8 CPUs "
        "and 0 GPUs in all"
    )


def test_what_the_nodes_have_is_said_if_they_can_never_hold_the_ranks():
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
    assert never_enough(config, nodes) == told
    assert told in str(no_room("there is room for 0 ranks", config, nodes))
    fewer = config.model_copy(update={"ranks": 2})
    assert never_enough(fewer, nodes) == ""  # they may be held by others now


def test_a_run_goes_on_without_a_node_that_lacks_its_folder():
    (notice,) = going_without([LACKS], room=2, min_ranks=2)
    assert notice == f"{LACKS}. In this session the run does without this node"


def test_without_room_elsewhere_the_run_ends_and_names_the_node():
    with pytest.raises(ClusterError, match=f"^{LACKS}. {LACKS}$"):
        going_without([LACKS, LACKS], room=1, min_ranks=2)


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
    assert "node a is lost" in "\n".join(scripted.audience.notices)


def test_all_attempts_of_a_session_carry_its_start(phrasebook, tmp_path, monkeypatch):
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
def test_a_run_whose_room_is_drained_leaves_and_one_that_lost_it_fails(
    phrasebook, tmp_path, monkeypatch, drained
):
    script = [trained(1)] if drained else [trained(1), lost()]
    ending = nullcontext() if drained else pytest.raises(ClusterError, match="room for 0 ranks")
    with scripted_run(
        phrasebook, tmp_path / "run", [script], monkeypatch, places=["a"], wait_for_ranks_seconds=0
    ) as scripted:
        offered = iter([["a"]])
        scripted.supply.offer = lambda nodes: next(offered, [])
        if drained:
            scripted.view.before["a"] = replace(scripted.view.before["a"], leaves_at=2e9)
        with ending:
            assert scripted.loop.run() == "preempted"
    left = "there is room for 0 ranks, and the run needs at least 1: the run leaves"
    assert (left in scripted.audience.notices) == drained


def test_ranks_start_only_where_the_run_has_its_folder(phrasebook, tmp_path, monkeypatch):
    ranks = {"min": 1, "max": 2}
    with scripted_run(
        phrasebook, tmp_path / "run", [[], [FINISHED]], monkeypatch, places=["a", "b"], ranks=ranks
    ) as scripted:
        offered = iter([["a", "b"]])  # none of node b once it was found unfit
        scripted.supply.offer = lambda nodes: next(offered, ["a"])
        scripted.supply.problems = [[LACKS]]
        assert scripted.loop.run() == "finished"
    unfit, fit = scripted.supply.groups
    assert unfit.job is None
    assert fit.nodes == ["a"]
    assert fit.job.checkpoint is None
    assert f"{LACKS}. In this session the run does without this node" in scripted.audience.notices


def test_spares_start_once_lost_steps_are_made_up_for(phrasebook, tmp_path, monkeypatch):
    scripts = [[trained(1), trained(2), lost()], [*map(trained, (1, 2, 3, 4)), FINISHED]]
    with scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch) as scripted:
        events = []
        scripted.audience.line = lambda line: events.append(line.step)
        scripted.supply.refill_spares = lambda: events.append("spares")
        assert scripted.loop.run() == "finished"
    assert events == [1, "spares", 2, 1, 2, 3, "spares", 4]
