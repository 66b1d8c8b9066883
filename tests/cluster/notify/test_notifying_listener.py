"""Send notifications about a run; an error in a notification does not affect the run."""

import pytest
from support.cluster.scripted_cluster import Notices
from support.recipes import tiny_values
from support.records.checkpoints import make_header, save_checkpoint
from support.records.lines import train_line, validation_line

from cluster.notify import run_events
from cluster.notify.run_events import NotifyingListener, RunEvents
from cluster.notify.targets import TargetError
from cluster.recipe import Recipe
from run_store.errors import LeaseLostError, RunError
from run_store.folder import RunFolder


class Target:
    """Target that records the names of events."""

    name = "TRANSLOOM_X"

    def __init__(self):
        self.events, self.stops = [], 0

    def send(self, notification, seconds):
        self.events.append(notification.event)

    def stop(self):
        self.stops += 1


class Log(Notices):
    def logging(self):
        from contextlib import nullcontext

        return nullcontext()


@pytest.fixture
def target(monkeypatch):
    target = Target()
    monkeypatch.setattr(run_events, "open_target", lambda config, environment: target)
    return target


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "tiny")
    folder.path.mkdir()
    return folder


def make_listener(run: RunFolder, events=("finished", "failed", "best_score"), targets=1):
    values = tiny_values(run.path.parent / "dataset", max_steps=10)
    values["tracking"]["notify"] = {
        "events": list(events),
        "targets": [{"command_from": f"TRANSLOOM_{n}"} for n in range(targets)],
    }
    return NotifyingListener(Log(), Recipe.of(values), run, {})


def end(listener, error):
    with pytest.raises(type(error)), listener.logging():
        raise error


@pytest.mark.parametrize("error", [LeaseLostError("another driver"), KeyboardInterrupt()])
def test_a_driver_that_lost_its_run_or_is_interrupted_sends_nothing(run, target, error):
    end(make_listener(run), error)
    assert target.events == []
    assert target.stops == 1


def test_an_error_that_ends_the_run_is_sent_and_raised(run, target):
    end(make_listener(run), RunError("no space"))
    assert target.events == ["failed"]


def test_events_that_the_recipe_does_not_select_are_not_sent(run, target):
    end(make_listener(run, events=["finished"]), RunError("no space"))
    assert target.events == []


@pytest.mark.parametrize("method", ["line", "notice", "vitals"])
def test_the_event_detector_gets_all_that_the_log_gets(run, target, monkeypatch, method):
    got = []
    monkeypatch.setattr(RunEvents, method, lambda self, source: got.append(source))
    listener = make_listener(run)
    monkeypatch.setattr(listener._listener, method, got.append, raising=False)
    source = object()
    with listener.logging():
        getattr(listener, method)(source)
    assert got == [source, source]


def finish(listener, run, tensors):
    with listener.logging():
        listener.line(train_line(10))
        listener.line(validation_line(10, loss=1.0))
        save_checkpoint(run.checkpoints, make_header(10), [tensors])


def test_a_finished_run_is_sent_once_and_after_its_other_events(run, target):
    import torch

    from run_store.checkpoints.fragment import Fragment

    listener = make_listener(run)
    finish(listener, run, [Fragment("master", "w", 0, torch.ones(4))])
    assert target.events == ["best_score", "finished"]
    # Outside the context, and in a second context without a step, nothing is sent.
    listener.line(validation_line(20, loss=0.5))
    with listener.logging():
        pass
    assert target.events == ["best_score", "finished"]


def test_all_targets_receive_an_event_and_a_target_without_its_variable_is_reported(
    run, target, monkeypatch
):
    opened = [target, Target()]

    def open_target(config, environment):
        if config.command_from == "TRANSLOOM_1":
            raise TargetError("TRANSLOOM_1 is not set")
        return opened[config.command_from == "TRANSLOOM_2"]

    monkeypatch.setattr(run_events, "open_target", open_target)
    listener = make_listener(run, targets=3)
    end(listener, RunError("no space"))
    assert [sent.events for sent in opened] == [["failed"], ["failed"]]
    (notice,) = listener._listener.notices
    assert "TRANSLOOM_1 is not set" in notice


@pytest.mark.parametrize("method", ["line", "notice", "vitals", "ended_by"])
def test_an_error_in_a_detector_does_not_reach_the_run(run, target, monkeypatch, method):
    def fail(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(RunEvents, method, fail)
    listener = make_listener(run)
    error = RunError("no space")

    def log_and_fail():
        listener.line(train_line(1))
        listener.notice("a notice")
        raise error

    with pytest.raises(RunError) as caught, listener.logging():
        log_and_fail()
    assert caught.value is error
    assert "a notice" in listener._listener.notices
