"""A run's state besides its tensors survives a checkpoint; a score belongs to one step alone."""

from dataclasses import fields

import pytest
from support.records.checkpoints import make_header
from support.records.progress import FAR

from data_pipeline.batching.plan import Cursor
from run_store.checkpoints.format import guard_fields
from trainer.state.progress import Progress

# The next step begins without scores.
KEPT = [field.name for field in fields(Progress) if field.name not in ("scores", "cursor")]


def restored(cursor: Cursor = FAR.cursor) -> Progress:
    values = {name: getattr(FAR, name) for name in KEPT}
    values |= guard_fields(values.pop("guard_states"))
    return Progress.of_checkpoint(make_header(values.pop("step"), **values), cursor)


def test_no_value_is_that_of_a_beginning():
    """Or the tests here would not notice that it is lost."""
    start = Progress()
    assert [f.name for f in fields(FAR) if getattr(FAR, f.name) == getattr(start, f.name)] == []


@pytest.mark.parametrize("name", KEPT)
def test_nothing_is_lost_on_resuming(name):
    assert getattr(restored(), name) == getattr(FAR, name)


def test_a_checkpoints_scores_are_not_those_of_the_steps_after_it():
    header = make_header(FAR.step, scores=FAR.scores)
    assert Progress.of_checkpoint(header, Cursor()).scores == {}


def test_data_continues_at_the_given_cursor():
    """After a shard was lost for good that is not where the checkpoint left it."""
    assert restored(Cursor(4, 0, 0)).cursor == Cursor(4, 0, 0)
