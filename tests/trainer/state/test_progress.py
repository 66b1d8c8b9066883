"""Training progress survives a checkpoint; scores belong to a single step."""

from dataclasses import fields

import pytest
from support.records.checkpoints import make_header
from support.records.progress import FAR

from data_pipeline.batching.plan import Cursor
from run_store.checkpoints.format import guard_fields
from trainer.state.progress import Progress

# The fields that a resumed run restores; the next step begins without scores.
KEPT = [field.name for field in fields(Progress) if field.name not in ("scores", "cursor")]


def restored(cursor: Cursor = FAR.cursor) -> Progress:
    values = {name: getattr(FAR, name) for name in KEPT}
    values |= guard_fields(values.pop("guard_states"))
    return Progress.of_checkpoint(make_header(values.pop("step"), **values), cursor)


def test_the_example_differs_from_the_defaults_in_each_field():
    """Otherwise the tests here would not detect that a field is lost."""
    start = Progress()
    assert [f.name for f in fields(FAR) if getattr(FAR, f.name) == getattr(start, f.name)] == []


@pytest.mark.parametrize("name", KEPT)
def test_each_field_is_restored_on_resuming(name):
    assert getattr(restored(), name) == getattr(FAR, name)


def test_scores_of_a_checkpoint_are_not_restored():
    header = make_header(FAR.step, scores=FAR.scores)
    assert Progress.of_checkpoint(header, Cursor()).scores == {}


def test_a_resumed_run_continues_at_the_given_data_cursor():
    """The given cursor differs from the checkpoint's cursor after a shard was lost."""
    assert restored(Cursor(4, 0, 0)).cursor == Cursor(4, 0, 0)
