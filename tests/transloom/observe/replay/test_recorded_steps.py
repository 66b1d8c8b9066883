"""Settings that a replay restores, as recorded when a run was resumed."""

import pytest

from run_store.errors import RunError
from run_store.record.metrics_lines import Resumed
from transloom.observe.replay.recorded_steps import RecordedSteps


def resumed(from_step, **changed):
    return Resumed(
        step=from_step,
        from_step=from_step,
        settings_changed={name.replace("__", "."): pair for name, pair in changed.items()},
    )


def test_a_setting_that_changed_twice_is_restored_to_its_first_value():
    record = [resumed(10, trainer__x=[1, 2]), resumed(20, trainer__x=[2, 3])]
    assert RecordedSteps.of(record).require_settings(1, 10) == {"trainer.x": 1}


def test_only_changes_after_the_replayed_steps_are_restored():
    record = [resumed(10, trainer__x=[1, 2]), resumed(20, trainer__x=[2, 3], trainer__y=[7, 8])]
    assert RecordedSteps.of(record).require_settings(11, 20) == {"trainer.x": 2, "trainer.y": 7}
    assert RecordedSteps.of(record).require_settings(21, 30) == {}


def test_replaying_steps_across_a_changed_setting_is_refused():
    record = [resumed(10, trainer__x=[1, 2])]
    with pytest.raises(RunError, match=r"trainer.x was 1 up to step 10, and 2 later"):
        RecordedSteps.of(record).require_settings(5, 15)
