"""The supervision of one group of ranks: growth, lost nodes, and what their reports lead to."""

import itertools
from contextlib import nullcontext
from dataclasses import replace

import pytest
from support.cluster.scripted_cluster import DRIVER, FINISHED, NOTHING, lost, scripted_run, trained

from cluster.health.hang_detector import Position
from cluster.ranks.group import Poll
from cluster.ranks.reports import StateFailed
from cluster.supervision.growth import GROW_AFTER_SECONDS
from trainer.errors import CheckpointError
from trainer.runs.vitals import read_vitals

GROWABLE = {"min": 1, "max": 2}
NO_ERROR = nullcontext()


@pytest.fixture
def scripted(phrasebook, tmp_path, monkeypatch):
    def start(scripts, **options):
        return scripted_run(phrasebook, tmp_path / "run", scripts, monkeypatch, **options)

    return start


def test_room_for_more_ranks_before_the_first_step_ends_nobody(scripted):
    waiting = [NOTHING] * 100
    first = itertools.chain(waiting, [trained(1)], itertools.repeat(NOTHING))
    with scripted([first, [FINISHED]], ranks=GROWABLE, wait_seconds=1.0) as run:
        offered = iter([1])  # one place at the start, two ever after
        run.supply.offer = lambda nodes: [DRIVER] * next(offered, 2)
        assert run.loop.run() == "finished"
    small, grown = run.supply.groups
    assert len(grown.nodes) == 2
    assert small.asked_to_stop_at >= len(waiting) + GROW_AFTER_SECONDS


def test_a_node_that_the_head_has_just_lost_is_lost(scripted):
    with scripted([[lost()]], places=("a", "b"), ranks=2) as run:
        del run.view.now["a"]
        assert run.context.lost_nodes({DRIVER, "a", "b"}) == {"a"}


def test_a_node_whose_agent_is_silent_is_lost_and_the_drivers_is_not(scripted):
    with scripted([[lost()]], places=("a", "b"), ranks=2) as run:
        run.supply.silent = {"b", DRIVER}
        assert run.context.lost_nodes({DRIVER, "a", "b"}) == {"b"}


def test_ranks_that_have_not_begun_are_not_waited_for(scripted):
    with scripted([[NOTHING] * 3, [FINISHED]], places=["a"]) as run:
        run.supply.trains = False
        stays, leaves = run.view.now, {"a": replace(run.view.now["a"], leaves_at=2e9)}
        start = run.supply.start_group

        def start_group(places, names):
            run.view.before = stays if run.supply.groups else stays | leaves
            return start(places, names)

        run.supply.start_group = start_group
        assert run.loop.run() == "finished"
    notices = "\n".join(run.audience.notices)
    assert "node a is being drained: the ranks leave before they have begun" in notices
    assert len(run.supply.groups) == 2


@pytest.mark.parametrize(
    ("more", "being_written"),
    [((), 2), ((StateFailed(2, "No space left on device"),), None)],
    ids=["under way", "failed"],
)
def test_vitals_show_a_checkpoint_until_it_has_failed(scripted, more, being_written):
    reports = [(0, report) for report in (Position("save", 2), *more)]
    ending = pytest.raises(CheckpointError, match="no checkpoint of step 2") if more else NO_ERROR
    with scripted([[Poll(reports), FINISHED]]) as run, ending:
        run.loop.run()
    assert read_vitals(run.context.run).checkpoint_being_written == being_written
    said = "rank 0: No space left on device" in run.audience.notices
    assert said == bool(more)
