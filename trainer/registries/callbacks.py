"""Registry of callbacks by their names in recipes, and the base classes of callbacks.

A callback sees every step of a run. There are two kinds:

- A *guard* decides about a step before it is applied. It may skip the step, or stop the run.
- An *observer* sees finished steps, and changes no bit of the training. It may add numbers to the
  step's line in the metrics file.

::

    class CeilingGuard(StepGuard):
        def __init__(self, ceiling: float) -> None:
            self._ceiling = ceiling

        def decide(self, view: StepView, gradient_norm: Callable[[], float]) -> Skip | None:
            if view.loss <= self._ceiling:
                return None
            return Skip(f"its loss {view.loss:.4g} was above {self._ceiling:.4g}")


    class Ceiling(GuardKind):
        ceiling: float = identity(REQUIRED, "Largest loss of an applied step.", gt=0)

        def build(self) -> StepGuard:
            return CeilingGuard(self.ceiling)


    CALLBACKS.register("ceiling", Ceiling)

A recipe selects it with `callbacks: [{type: ceiling, options: {ceiling: 9}}]`. The fields of the
class are the options, which are checked when the recipe is loaded. Guards and their options are
part of the run's identity: a different value requires a new run. Observers are not.
docs/extensions/loss_ceiling.py and docs/extensions/step_cost.py are complete examples.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from foundation.registry import Registry
from foundation.section import Section

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class StepView:
    """Numbers of a step after the ranks have exchanged them, before the step is applied.

    They are equal on all ranks, and in each repetition of the step.

    Attributes:
        step: the number of the step.
        loss: the minimised loss per loss unit, such as a target token. Slots that are not finite
            count as 0 here and in `sums`.
        sums: all sums that the network's forward pass returns, per loss unit, by name.
        units: the loss units of the step.
        learning_rate: the learning rate of the step.
        slot_losses: the sum of the losses of each slot.
        slot_units: the loss units of each slot.
    """

    step: int
    loss: float
    sums: Mapping[str, float]
    units: int
    learning_rate: float
    slot_losses: tuple[float, ...]
    slot_units: tuple[int, ...]


class RankTimes(NamedTuple):
    """Times of all ranks in a step: arrays of one value per rank.

    Attributes:
        compute: the seconds of the rank's passes, without dummies, and without waits for other
            ranks.
        wait: the seconds of the rank's waits for other ranks. They include the waits in the
            exchange and the update of the previous step.
        data: the seconds for which the rank waited for the step's data.
        equal_compute: the seconds that the rank would take for the mean work of all ranks.
    """

    compute: "np.ndarray"
    wait: "np.ndarray"
    data: "np.ndarray"
    equal_compute: "np.ndarray"


@dataclass(frozen=True)
class ObservedStep(StepView):
    """Numbers of a finished step.

    Attributes:
        gradient_norm: the norm of the gradients before clipping; None if the step was not applied.
        seconds: the duration of the step, without validation and checkpoint.
        rank_times: the times of all ranks; None with one rank.
        is_interrupted: True if the times include other work, such as a checkpoint or a repetition.

    All of these except the norm depend on clocks and machines.
    """

    gradient_norm: float | None
    seconds: float
    rank_times: RankTimes | None
    is_interrupted: bool


class StepObserver(Protocol):
    """Observer of a rank's steps, which changes no bit of the computation.

    All ranks call their observers in the same order, so a built-in observer may use collectives. An
    extension's observer must not use them: if another rank died during a collective, the run would
    not restart.
    """

    def around(self, step: int) -> AbstractContextManager[None]:
        """Return a context manager around a step, including its data loading and its line."""
        return nullcontext()

    def after_step(self, view: ObservedStep) -> Mapping[str, Any]:
        """Return fields to add to the step's line, which only rank 0 records."""
        return {}


@dataclass(frozen=True)
class Skip:
    """Decision not to apply a step.

    Attributes:
        reason: a clause that follows "because", such as "its loss 9.4 was above 9".
        remedy: settings with which a new run might not skip such steps, as text after "or with". If
            empty, the options of the guard are named.
        slots: the slots that cause the decision, if any.
        fields: the values of `SkippedLine` fields that a built-in guard knows.
    """

    reason: str
    remedy: str = ""
    slots: tuple[int, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


class Stop(Skip):
    """Decision not to apply a step, and to end the run with an error."""


class StepGuard(Protocol):
    """Guard of a run, which decides whether a step is applied.

    Each rank has a guard, and all must decide alike. So a decision must follow only from the
    arguments, the settings, and a state that follows from earlier calls.
    """

    def decide(self, view: StepView, gradient_norm: Callable[[], float]) -> Skip | None:
        """Return the decision about a step whose loss and gradients are finite; None to apply it.

        Args:
            view: the numbers of the step.
            gradient_norm: returns the norm of the gradients before clipping. It is a collective,
                so all ranks must call it in the same steps. The norm of an overflown sum is not
                finite; such a step is not applied in any case.
        """

    def applied(self, view: StepView, gradient_norm: float) -> None:
        """Update the state after an applied step; not called after skipped steps."""

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint: a JSON object of at most 64 kB, equal on all ranks."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint of the run."""


class GuardKind(Section):
    """Settings of a guard, as fields; `build` creates the guard of a rank."""

    @abstractmethod
    def build(self) -> StepGuard:
        """Return the guard, as at step 0."""


class ObserverKind(Section):
    """Settings of an observer, as fields; `build` creates the observer of a rank."""

    @abstractmethod
    def build(self, rank: int, run: Path) -> StepObserver:
        """Return the observer.

        Args:
            rank: the number of the rank.
            run: the run's folder.
        """


CALLBACKS: Registry[type[GuardKind] | type[ObserverKind]] = Registry("callback", "callbacks.type")
