"""The example callback loss_ceiling; tests/integration/test_callbacks.py trains with it."""

import pytest
from loss_ceiling import LossCeiling

from trainer.config import CallbackConfig
from trainer.registries.callbacks import Skip, StepView, Stop


def decisions(losses, **options):
    guard, found = LossCeiling(**options).build(), []
    for step, loss in enumerate(losses, 1):
        view = StepView(step, loss, {"loss": loss}, 1, 0.1, (loss,), (1,))
        decision = guard.decide(view, lambda: pytest.fail("it needs no norm"))
        found.append(type(decision))
        if decision is None:
            guard.applied(view, 1.0)
    return found, guard.state()


def test_steps_with_a_loss_far_above_the_average_are_skipped():
    found, state = decisions([4.0, 6.0, 6.1, 2.0, 20.5], factor=1.5, decay=0.5, stop_above=20)
    assert found == [type(None), type(None), type(None), type(None), Stop]
    assert state == {"mean": ((4 + 6) / 2 + 6.1) / 4 + 1.0}
    found, state = decisions([4.0, 6.1, 4.0], factor=1.5, decay=0.5)
    assert found == [type(None), Skip, type(None)]
    assert state == {"mean": 4.0}


def test_options_of_loss_ceiling_are_checked_when_the_recipe_is_loaded():
    config = CallbackConfig(type="loss_ceiling", options={"factor": 2})
    assert config.options == {"factor": 2.0, "decay": 0.98, "stop_above": None}
    with pytest.raises(ValueError, match="greater than 1"):
        CallbackConfig(type="loss_ceiling", options={"factor": 1})
    with pytest.raises(ValueError, match=r"'loss_floor'.*no such callback"):
        CallbackConfig(type="loss_floor")
