"""Response of a run to silent data corruption: excluded nodes, restarts, the end of the run, and
checkpoints that are no longer trusted.
"""

import pickle
from functools import partial

import pytest
from support.cluster.scripted_cluster import (
    FINISHED,
    save_step,
    trained,
    write_memory,
)

from cluster.errors import ClusterError
from cluster.ranks.group import Poll
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.record.corruption import CorruptionFinding, SilentCorruptionError
from run_store.record.run_status import read_status

THREE = ("a", "b", "c")


def found(*ranks, certain=True, reproducible=True, verified=0, places=THREE):
    """Return a poll in which all ranks have raised the error of a finding."""
    finding = CorruptionFinding(
        checked_step=9,
        slots=(2,),
        ranks=ranks,
        nodes=tuple(f"{places[rank]}" for rank in ranks),
        parameters=("x.weight",),
        parameter_count=1,
        is_certain=certain,
        is_reproducible=reproducible,
        last_verified_step=verified,
    )
    return Poll([], failure=SilentCorruptionError(finding))


@pytest.fixture
def scripted(scripted):
    return partial(scripted, places=THREE, ranks={"min": 2, "max": 3})


def nodes(run):
    return [group.nodes for group in run.supply.groups]


def steps(run):
    return [step_of(path) for path in list_checkpoints(run.context.run.checkpoints)]


def test_a_corruption_error_keeps_its_finding_when_it_is_pickled():
    error = found(1).failure
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (copy.finding, str(copy)) == (error.finding, str(error))


@pytest.mark.parametrize("reproducible", [True, False])
def test_the_node_of_an_identified_rank_is_excluded(scripted, reproducible):
    with scripted([[trained(6), found(1, reproducible=reproducible)], [FINISHED]]) as run:
        assert run.loop.run() == "finished"
    (restart,) = read_status(run.context.run).vitals.restarts
    assert nodes(run) == [["a", "b", "c"], ["a", "c"]]
    (unfit,) = run.context.unfit
    assert unfit.id == "b"
    assert unfit.reason.startswith("Node b has computed wrong bits in step 9")
    (said,) = (text for text in run.listener.notices if "corruption" in text)
    assert said.startswith("the run no longer uses node b")
    assert "silent data corruption: rank 1 on node b" in restart.cause


def test_a_corrupting_node_is_used_once_more_if_the_run_needs_it(scripted):
    two = {"places": ("a", "b"), "ranks": 2}
    with scripted([[found(0)], [trained(9), FINISHED]], **two) as run:
        assert run.loop.run() == "finished"
    assert nodes(run) == [["a", "b"], ["a", "b"]]
    assert not len(run.context.unfit)
    assert any("restarting once on the same nodes" in text for text in run.listener.notices)


def test_a_second_corruption_on_a_node_that_the_run_needs_ends_the_run(scripted):
    two = {"places": ("a", "b"), "ranks": 2}
    with (
        scripted([[found(0)], [found(0, reproducible=False)]], **two) as run,
        pytest.raises(ClusterError, match=r"An earlier check.*node a.*Test the processor"),
    ):
        run.loop.run()


def test_corruption_on_either_of_two_nodes_excludes_none_and_ends_the_run_if_repeated(scripted):
    open_one = found(0, 1, certain=False)
    with (
        scripted([[open_one], [trained(8), open_one]]) as run,
        pytest.raises(ClusterError, match=r"either rank 0 on node a or rank 1.*Test both"),
    ):
        run.loop.run()
    assert nodes(run) == [["a", "b", "c"]] * 2
    assert not len(run.context.unfit)


def test_two_suspect_ranks_on_one_node_exclude_that_node(scripted):
    places = ("a", "a", "b", "b")
    open_one = found(0, 1, certain=False, places=places)
    with scripted([[open_one], [FINISHED]], places=places, ranks={"min": 2, "max": 4}) as run:
        assert run.loop.run() == "finished"
    assert nodes(run) == [["a", "a", "b", "b"], ["b", "b"]]


def test_checkpoints_after_the_last_verified_step_are_set_aside(scripted):
    with scripted([[found(1, verified=6)], [FINISHED]]) as run:
        older, newer = save_step(run, 5), save_step(run, 7)
        assert run.loop.run() == "finished"
        assert steps(run) == [5]
    assert [group.job.checkpoint for group in run.supply.groups] == [newer, older]
    assert newer.with_name(f"damaged-{newer.name}").exists()
    assert any("step 7 may be wrong" in text for text in run.listener.notices)


def test_a_fault_that_is_not_reproducible_sets_no_checkpoint_aside(scripted):
    with scripted([[found(1, verified=6, reproducible=False)], [FINISHED]]) as run:
        save_step(run, 5)
        newer = save_step(run, 7)
        assert run.loop.run() == "finished"
        assert steps(run) == [5, 7]
    assert [group.job.checkpoint for group in run.supply.groups] == [newer, newer]


def test_a_run_that_was_never_verified_starts_over(scripted):
    with scripted([[found(1)], [FINISHED]]) as run:
        save_step(run, 5)
        assert run.loop.run() == "finished"
        assert steps(run) == []
    assert run.supply.groups[-1].job.checkpoint is None


def test_without_an_older_checkpoint_the_newest_is_used_with_advice_to_replay(scripted):
    with scripted([[found(1, verified=4)], [FINISHED]]) as run:
        save_step(run, 5)
        newer = save_step(run, 7)
        assert run.loop.run() == "finished"
        assert steps(run) == [5, 7]
    assert run.supply.groups[-1].job.checkpoint == newer
    (said,) = (text for text in run.listener.notices if "transloom replay" in text)
    assert "--steps 5:7" in said


@pytest.mark.parametrize(("verified", "trusted"), [(6, False), (8, True)])
def test_a_memory_checkpoint_is_trusted_up_to_the_last_verified_step(scripted, verified, trusted):
    def first():
        yield trained(8)
        yield write_memory(run, 8)
        yield found(0, verified=verified, places=("a",))

    one = {"places": ("a",), "ranks": 1, "memory_every_steps": 4}
    with scripted([first(), [FINISHED]], **one) as run:
        older = save_step(run, 5)
        assert run.loop.run() == "finished"
    job = run.supply.groups[-1].job
    assert job.checkpoint == older
    assert (job.memory_checkpoint is not None) == trusted


def test_ranks_end_before_their_checkpoints_are_set_aside(scripted, monkeypatch):
    """A rank that is still alive could write or commit another checkpoint."""
    with scripted([[found(1, verified=6)], [FINISHED]]) as run:
        save_step(run, 5)
        save_step(run, 7)
        steps_at_ends, end_group = [], run.supply.end_group

        def end():
            steps_at_ends.append(steps(run))
            end_group()

        monkeypatch.setattr(run.supply, "end_group", end)
        assert run.loop.run() == "finished"
    assert steps_at_ends[0] == [5, 7]
    assert steps(run) == [5]
