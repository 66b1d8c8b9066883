"""Callbacks of one rank: observers and guards of its steps, called in a fixed order.

    builder ──▶ Callbacks ◀──calls── loop
                 ├ observers   around each step, and after it
                 └ guards      before a step is applied; the first decision counts

The loop knows no callback by name. Exceptions of an extension's callbacks become a `CallbackError`,
after which no run is restarted.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from run_store.checkpoints.format import guard_state
from trainer.errors import CallbackError
from trainer.registries.callbacks import ObservedStep, Skip, StepGuard, StepObserver, StepView

MAX_NUMBERS = 32  # maximum number of numbers that an observer may add to a line
_NAME = re.compile(r"\w{1,64}", re.ASCII)
MAX_REASON_CHARACTERS = 300
OBSERVED = "observed"  # field of a line for the numbers of all extensions' observers


class Callbacks:
    """Observers, and guards by the recipe keys that create them."""

    def __init__(
        self,
        observers: Sequence[StepObserver] = (),
        guards: Mapping[str, StepGuard] = MappingProxyType({}),
    ) -> None:
        self._observers = observers
        self._guards = guards

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        """Run the step in the body within the contexts of all observers."""
        with ExitStack() as contexts:
            for observer in self._observers:
                contexts.enter_context(observer.around(step))
            yield

    def after_step(self, view: ObservedStep) -> dict[str, Any]:
        """Return the fields that the observers add to the step's line."""
        fields: dict[str, Any] = {}
        observed: dict[str, float] = {}
        for observer in self._observers:
            fields |= observer.after_step(view)
            observed |= fields.pop(OBSERVED, {})
        return fields | ({OBSERVED: observed} if observed else {})

    def decide(self, view: StepView, gradient_norm: Callable[[], float]) -> Skip | None:
        """Return the first guard's decision against a step, or None to apply it."""
        decisions = (guard.decide(view, gradient_norm) for guard in self._guards.values())
        return next((decision for decision in decisions if decision), None)

    def applied(self, view: StepView, gradient_norm: float) -> None:
        """Tell the guards that a step was applied."""
        for guard in self._guards.values():
            guard.applied(view, gradient_norm)

    def guard_states(self) -> dict[str, dict[str, Any]]:
        """Return the guards' states for a checkpoint."""
        return {name: guard.state() for name, guard in self._guards.items()}


class ExtensionObserver(StepObserver):
    """Observer of an extension; its numbers are entries of the line's field `observed`."""

    def __init__(self, name: str, observer: StepObserver) -> None:
        """Store the observer and the type that a recipe names."""
        self._name = name
        self._observer = observer

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        with self._blamed(step):
            context = self._observer.around(step)
            context.__enter__()
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the step's own error is raised
                context.__exit__(*sys.exc_info())
            raise
        with self._blamed(step):
            context.__exit__(None, None, None)

    def after_step(self, view: ObservedStep) -> Mapping[str, Any]:
        with self._blamed(view.step):
            numbers = dict(self._observer.after_step(view))
            _require_numbers(numbers)
        return {OBSERVED: {f"{self._name}/{key}": value for key, value in numbers.items()}}

    def _blamed(self, step: int) -> AbstractContextManager[None]:
        return blamed("observer", self._name, self._observer, step)


class ExtensionGuard(StepGuard):
    """Guard of an extension."""

    def __init__(self, name: str, guard: StepGuard) -> None:
        """Store the guard and the type that a recipe names."""
        self._name = name
        self._guard = guard
        self._step = 0

    def decide(self, view: StepView, gradient_norm: Callable[[], float]) -> Skip | None:
        self._step = view.step
        decision, lost = None, list[Exception]()

        def norm() -> float:
            try:
                return gradient_norm()
            except Exception as error:  # for example, because another rank has died
                lost.append(error)
                raise

        try:
            with self._blamed():
                decision = self._named(self._guard.decide(view, norm), view)
        except CallbackError:
            if not lost:
                raise
        if lost:
            raise lost[0]
        return decision

    def _named(self, decision: Skip | None, view: StepView) -> Skip | None:
        """Return a decision with the guard's name, and within the limits of a line."""
        if decision is None:
            return None
        reason = str(decision.reason)[:MAX_REASON_CHARACTERS]
        return replace(
            decision,
            remedy=decision.remedy or f"other options of the callback {self._name}",
            slots=tuple(slot for slot in range(len(view.slot_units)) if slot in decision.slots),
            fields={
                "cause": "guard",
                "refusal": f"the guard {self._name} refused it: {reason}",
                "loss": view.loss,
            },
        )

    def applied(self, view: StepView, gradient_norm: float) -> None:
        with self._blamed():
            self._guard.applied(view, gradient_norm)

    def state(self) -> dict[str, Any]:
        with self._blamed():
            return guard_state(self._guard.state())

    def restore(self, state: dict[str, Any]) -> None:
        with self._blamed():
            self._guard.restore(state)

    def _blamed(self) -> AbstractContextManager[None]:
        return blamed("guard", self._name, self._guard, self._step)


@contextmanager
def blamed(kind: str, name: str, callback: object, step: int) -> Iterator[None]:
    """Attribute exceptions in the body to an extension's callback.

    Raises:
        CallbackError: the body raised an exception.
    """
    try:
        yield
    except Exception as error:  # extension code may raise anything
        raise CallbackError(
            f"The {kind} {name!r} of the extension {type(callback).__module__} failed at step "
            f"{step}: {type(error).__name__}: {error}. Correct the extension, or remove {name!r} "
            "from callbacks in the recipe. Corrected code or another guard requires a new run"
        ) from error


def _require_numbers(added: Mapping[str, Any]) -> None:
    """Raise ValueError if an observer adds anything but a few finite numbers to a line."""
    if len(added) > MAX_NUMBERS:
        raise ValueError(f"it adds {len(added)} numbers, expected at most {MAX_NUMBERS} per step")
    for key, value in added.items():
        is_named = isinstance(key, str) and _NAME.fullmatch(key)
        if not (is_named and isinstance(value, (int, float)) and math.isfinite(value)):
            raise ValueError(
                f"it adds {key!r:.80}: {value!r:.80}, expected a name of up to 64 letters, digits "
                "and _, and a finite int or float: rename it, convert it, or leave it out"
            )
