"""Observers and guards: their order, exceptions, numbers in lines, and state in checkpoints."""

import ast
import math
from contextlib import contextmanager, suppress
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.ranks.loop_parts import SLOTS, Story, make_trainer, recipe
from support.records.checkpoints import make_header

from cluster.health.failures import is_permanent
from run_store.checkpoints.format import (
    HEADER,
    MAX_GUARD_STATE_BYTES,
    SPIKE_GUARD,
    guard_fields,
    read_header,
)
from run_store.record.metrics_lines import SkippedLine, parse_line
from trainer.errors import CallbackError, GuardError, SpikeError
from trainer.registries.callbacks import Skip, StepGuard, StepObserver, Stop
from trainer.state.progress import Progress
from trainer.training.callbacks import ExtensionGuard, ExtensionObserver

ROOT = Path(__file__).resolve().parents[3]
OPTIONAL = ("step_profiler", "prober", "slow_ranks", "spike_guard")


class Noting(StepObserver):
    """Observer that appends each call to the events of a story."""

    def __init__(self, name, story, numbers=None):
        self.name, self.story, self.numbers = name, story, numbers or {}
        self.views = []

    @contextmanager
    def around(self, step):
        self.story.events.append(("enters", step, self.name))
        yield
        self.story.events.append(("leaves", step, self.name))

    def after_step(self, view):
        self.story.events.append(("sees", view.step, self.name))
        self.views.append(view)
        return self.numbers


class Refusing(StepGuard):
    """Guard that refuses some steps, and remembers which were applied."""

    def __init__(self, refused=(), decision=Skip, asks=True):
        self.refused, self.decision, self.asks = refused, decision, asks
        self.seen = []

    def decide(self, view, gradient_norm):
        norm = gradient_norm() if self.asks else None
        assert norm in (None, 1.5)
        return self.decision("it is refused", slots=(1, 7)) if view.step in self.refused else None

    def applied(self, view, gradient_norm):
        self.seen.append((view.step, gradient_norm))

    def state(self):
        return {"seen": self.seen}

    def restore(self, state):
        self.seen = [tuple(pair) for pair in state["seen"]]


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_optional_callback_is_imported_only_by_the_builders(name):
    """To remove a callback, only its file, the builders and the configuration must change."""
    module = f"trainer.training.{name}"
    users = {
        str(file.relative_to(ROOT))
        for package in ("foundation", "data_pipeline", "model", "trainer", "cluster", "transloom")
        for file in (ROOT / package).rglob("*.py")
        if module in imports_of(file)
    }
    assert users
    assert {Path(user).parent.as_posix() for user in users} == {"trainer/assembly"}


def test_callbacks_are_called_in_order_around_the_step_and_its_line(tmp_path):
    story = Story()
    observers = [Noting("first", story), ExtensionObserver("second", Noting("second", story))]
    make_trainer(story, recipe(max_steps=2), tmp_path, observers=observers).train()
    names = story.of("enters", "applied", "sees", "leaves", "validated")
    assert [event[:3] if len(event) > 2 else event for event in names][:7] == [
        ("enters", 1, "first"),
        ("enters", 1, "second"),
        ("applied", 1, story.of("applied")[0][2]),
        ("sees", 1, "first"),
        ("sees", 1, "second"),
        ("leaves", 1, "second"),
        ("leaves", 1, "first"),
    ]
    assert names[-1][0] == "validated"  # validation is not part of a step


def test_a_step_view_is_frozen_and_has_the_numbers_of_the_line(tmp_path):
    story, training = Story(bad={2}), recipe(max_steps=3)
    observer = Noting("one", story)
    make_trainer(story, training, tmp_path, observers=[observer]).train()
    for view, line in zip(observer.views, story.lines, strict=False):
        assert (view.step, len(view.slot_losses), len(view.slot_units)) == (line.step, SLOTS, SLOTS)
        if line.kind == "skipped":
            assert view.gradient_norm is None
            continue
        assert (view.loss, view.sums["nll"], view.gradient_norm) == (
            line.loss,
            line.nll,
            line.grad_norm,
        )
        assert (view.units, view.learning_rate) == (line.target_tokens, line.learning_rate)
        assert view.seconds == line.step_seconds
    with pytest.raises(FrozenInstanceError):
        view.loss = 0.0
    with pytest.raises(TypeError):
        view.sums["nll"] = 0.0


def test_numbers_of_observers_are_in_lines_of_applied_and_skipped_steps(tmp_path):
    story = Story(bad={2})
    numbers = {"a": {"x": 1, "y": 0.5}, "b": {"x": 2.0}}
    observers = [ExtensionObserver(n, Noting(n, story, added)) for n, added in numbers.items()]
    make_trainer(story, recipe(max_steps=2), tmp_path, observers=observers).train()
    for line, kind in zip(story.lines, ("train", "skipped"), strict=False):
        assert (line.kind, line.observed) == (kind, {"a/x": 1, "a/y": 0.5, "b/x": 2})
        assert parse_line(line.to_json().encode()) == line
    plain = Story()
    make_trainer(plain, recipe(max_steps=1), tmp_path).train()
    assert "observed" not in plain.lines[0].to_json()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"x": math.nan}, "'x': nan, expected .* a finite"),
        ({"x": "1"}, "'x': '1', expected .* a finite"),
        ({"loss/x": 1}, "'loss/x': 1, expected a name of"),
        ({f"x{n}": n for n in range(33)}, "adds 33 numbers, expected at most 32"),
        (7, "TypeError"),
    ],
)
def test_invalid_numbers_of_an_observer_end_the_run_and_name_it(tmp_path, numbers, message):
    story = Story()
    observer = ExtensionObserver("odd", Noting("odd", story, numbers))
    trainer = make_trainer(story, recipe(max_steps=3), tmp_path, observers=[observer])
    with pytest.raises(CallbackError, match=rf"observer 'odd' .* {__name__} .*step 1.*{message}"):
        trainer.train()


class Failing(StepObserver, StepGuard):
    """Callback that fails in one of its methods."""

    def __init__(self, method):
        self.method = method

    def fail(self, method, result=None):
        if method == self.method:
            raise ZeroDivisionError("of the extension")
        return result

    @contextmanager
    def around(self, step):
        self.fail("enter")
        yield
        self.fail("leave")

    def after_step(self, view):
        return self.fail("after_step", {})

    def decide(self, view, gradient_norm):
        return self.fail("decide")

    def applied(self, view, gradient_norm):
        self.fail("applied")

    def state(self):
        return self.fail("state", {})


@pytest.mark.parametrize("method", ["enter", "leave", "after_step", "decide", "applied", "state"])
def test_an_exception_of_a_callback_names_the_extension_and_is_permanent(tmp_path, method):
    story, failing = Story(), Failing(method)
    trainer = make_trainer(
        story,
        recipe(max_steps=3),
        tmp_path,
        observers=[ExtensionObserver("odd", failing)],
        guards={"callbacks.odd": ExtensionGuard("odd", failing)},
    )
    with pytest.raises(CallbackError, match=rf"'odd' .*{__name__}.*ZeroDivisionError") as error:
        trainer.train()
    assert "callbacks in the recipe" in str(error.value)
    assert is_permanent(error.value)


def test_an_exception_of_the_step_is_not_attributed_to_an_extension(tmp_path):
    """An example is the loss of another rank in a collective, after which the ranks restart."""

    class LostError(Exception):
        pass

    class Swallowing(StepObserver):
        @contextmanager
        def around(self, step):
            try:
                yield
            except LostError as error:
                raise ValueError("hidden") from error

    def lose(*_, **__):
        raise LostError

    class Deaf(StepGuard):
        def decide(self, view, gradient_norm):
            with suppress(LostError):
                gradient_norm()

    cases = [("forward_backward", Deaf()), ("gradient_norm", Refusing()), ("gradient_norm", Deaf())]
    for method, guard in cases:
        trainer = make_trainer(
            Story(),
            recipe(max_steps=3),
            tmp_path,
            observers=[ExtensionObserver("odd", Swallowing())],
            guards={"callbacks.asks": ExtensionGuard("asks", guard)},
        )
        setattr(trainer.engine, method, lose)
        with pytest.raises(LostError):
            trainer.train()


@pytest.mark.parametrize("asks", [True, False])
def test_a_step_refused_by_a_guard_is_discarded_and_recorded_with_its_name(tmp_path, asks):
    story, guard = Story(), Refusing({2}, asks=asks)
    norms = []
    trainer = make_trainer(
        story,
        recipe(max_steps=4),
        tmp_path,
        guards={"callbacks.strict": ExtensionGuard("strict", guard)},
    )
    compute = trainer.engine.gradient_norm
    trainer.engine.gradient_norm = lambda amax: norms.append(story.step) or compute(amax)
    trainer.train()
    assert norms == ([1, 2, 3, 4] if asks else [1, 3, 4])  # computed once per step
    assert story.of("discarded") == [("discarded", 2)]
    assert guard.seen == [(1, 1.5), (3, 1.5), (4, 1.5)]
    (line,) = (line for line in story.lines if isinstance(line, SkippedLine))
    assert (line.step, line.cause, line.slots, line.skipped_spikes) == (2, "guard", [1], 1)
    assert line.reason == "the guard strict refused it: it is refused"
    assert parse_line(line.to_json().encode()) == line
    (notice,) = story.notices
    assert "step 2 is skipped, because the guard strict refused it" in notice
    states = {saved.step: saved.guard_states["callbacks.strict"] for saved, _ in story.saved}
    assert states[2] == {"seen": [[1, 1.5]]}  # the saved state is a copy
    assert states[4] == {"seen": [[1, 1.5], [3, 1.5], [4, 1.5]]}


def test_too_many_refused_steps_in_a_row_and_a_stop_end_the_run(tmp_path):
    for guard, part in (
        (Refusing({2, 3, 4}), "3 steps in a row, up to step 4"),
        (Refusing({4}, decision=Stop), "Step 4 was not applied"),
    ):
        story = Story()
        trainer = make_trainer(
            story,
            recipe(max_steps=9, stop_after_skipped_steps=3),
            tmp_path,
            guards={"callbacks.strict": ExtensionGuard("strict", guard)},
        )
        with pytest.raises(GuardError, match=part) as error:
            trainer.train()
        assert not isinstance(error.value, SpikeError)
        assert is_permanent(error.value)
        assert story.lines[-1].step == 4
        assert story.events[-1] == ("written", 4)
        for words in ("strict refused it", "slots [1]", "trainer.init_from", "callback strict"):
            assert words in str(error.value)


def test_a_guard_continues_with_the_state_of_its_checkpoint(tmp_path):
    """Both guards refuse step 3, and the first one decides."""
    first, second = Refusing({3}), Refusing({3})
    story = Story()
    guards = {"callbacks.a": ExtensionGuard("a", first), "callbacks.b": ExtensionGuard("b", second)}
    make_trainer(story, recipe(max_steps=4), tmp_path, guards=guards).train()
    (line,) = (line for line in story.lines if line.kind == "skipped")
    assert "guard a" in line.refusal
    header = make_header(4, **guard_fields(story.saved[-1][0].guard_states))
    states = Progress.of_checkpoint(header, story.saved[-1][0].cursor).guard_states
    resumed = Refusing()
    ExtensionGuard("a", resumed).restore(states["callbacks.a"])
    assert resumed.seen == first.seen == [(1, 1.5), (2, 1.5), (4, 1.5)]


@pytest.mark.parametrize(
    "state",
    [{"x": "y" * MAX_GUARD_STATE_BYTES}, [1], {"x": math.inf}, {"x": object()}],
    ids=["large", "list", "infinite", "object"],
)
def test_a_guard_state_that_is_not_small_json_is_refused_on_writing_and_reading(state):
    guard = Refusing()
    guard.state = lambda: state
    with pytest.raises(CallbackError, match="guard 'odd'"):
        ExtensionGuard("odd", guard).state()
    with pytest.raises((ValidationError, TypeError)):
        make_header(1, guards={"callbacks.odd": state})


def test_a_checkpoint_has_the_states_of_the_spike_guard_and_of_extensions(tmp_path):
    window = {"losses": [2.5, 0.1], "grad_norms": [0.5, 1e-17]}
    (tmp_path / HEADER).write_text(make_header(3, recent_steps=window).to_json())
    header = read_header(tmp_path)
    assert header.guard_states == {SPIKE_GUARD: window}
    assert make_header(3, **guard_fields(header.guard_states)) == header.model_copy(
        update={"sha256": None}
    )
    extended = make_header(3, guards={"callbacks.a": {"mean": 0.1}}, recent_steps=window)
    (tmp_path / HEADER).write_text(extended.to_json())
    assert read_header(tmp_path).guard_states == {SPIKE_GUARD: window, "callbacks.a": {"mean": 0.1}}
