"""Registry of schedules by their names in recipes, and the base class of an extension's schedule.

    class Halving(Schedule):
        first: float = identity(REQUIRED, "The rate of the first step.", gt=0)
        steps: int = identity(1000, "Steps in which the rate is halved.", gt=0)

        def rate(self, step: int, width: int) -> float:
            return float(self.first * 0.5 ** ((step - 1) / self.steps))

    SCHEDULES.register("halving", Halving)

A recipe selects this schedule in its section `trainer.schedule` with `{type: halving, options:
{first: 0.01}}`. The fields of the class are the options. They are checked when the recipe is
loaded, and they are part of the run's identity: a different value requires a new run.
"""

from abc import abstractmethod

from foundation.registry import Registry
from foundation.section import Section


class Schedule(Section):
    """Learning rate as a function of the step; the fields are its settings."""

    @abstractmethod
    def rate(self, step: int, width: int) -> float:
        """Return the learning rate of an optimizer step.

        The rate must depend only on the arguments and the settings, because each rank and each
        resumed run computes it independently.

        Args:
            step: the optimizer step, from 1.
            width: the width of the model.
        """


# None represents a formula in `trainer.training.schedule`, whose settings are fields of
# `trainer.config.ScheduleConfig` itself.
SCHEDULES: Registry[type[Schedule] | None] = Registry("schedule", "trainer.schedule.type")
for _name in ("paper", "inverse_square_root", "cosine", "linear", "constant"):
    SCHEDULES.register(_name, None)
