"""Runs that send notifications: messages, programs that fail, and places without the secret.

The driver of each run is this process.
"""

import re
import threading

import pytest
from support.canaries import leaks
from support.receiving_program import HANG, SECRET, TARGET, VARIABLE, ReceivingProgram

from cluster.notify import delivery
from cluster.supervision.inline import InlineSupervision
from run_store.errors import RunInUseError
from run_store.lease import Lease
from run_store.record.notify_event import EVENTS
from trainer.errors import NonFiniteLossError
from trainer.notify_config import MAX_TARGETS

ALL = f"tracking.notify.events=[{', '.join(EVENTS)}]"
SHORT = ["trainer.max_steps=6"]  # the end has a validation and a checkpoint
# The loss of the second step and of all later steps is not finite.
DIVERGE = [
    "trainer.schedule.warmup_steps=0",
    "trainer.schedule.peak_learning_rate=1e30",
]


def targets(*given):
    return f"tracking.notify.targets=[{', '.join(given)}]"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    pauses = tuple(pause / 100 for pause in delivery.PAUSES_SECONDS)
    monkeypatch.setattr(delivery, "PAUSES_SECONDS", pauses)


@pytest.fixture
def runs(inline_runs):
    return inline_runs


@pytest.fixture
def receive(tmp_path, monkeypatch):
    """Return a function that makes a program with these answers the target of the test's runs."""

    def make(*answers):
        program = ReceivingProgram(tmp_path / "received", *answers)
        monkeypatch.setenv(VARIABLE, program.command)
        return program

    return make


def test_a_run_sends_its_best_scores_and_that_it_finished(runs, receive):
    program = receive(1, 0)
    options = [*SHORT, "trainer.validate_every_steps=3", targets(TARGET), ALL]
    result = runs.train("run", *options, inline=True)
    again = runs.train("run", *options, inline=True)
    assert (result.outcome, again.outcome) == ("finished", "finished")
    first, repeated, *others = program.messages
    assert first == repeated  # sent again after the failure
    assert {message["event"] for message in others} <= {"best_score", "finished"}
    *_, end = others
    assert end["event"] == "finished"
    assert program.events.count("finished") == 1  # resuming the run sends no other
    scores = {
        line["step"]: line["scores"]["loss"]["value"] for line in runs.lines("run", "validation")
    }
    best = min(scores.values())
    assert end["score"] == {"name": "loss", "value": best}
    assert first["score"]["value"] == scores[3]
    assert (end["run"], end["step"], end["max_steps"]) == ("run", 6, 6)
    assert "trained to step 6. Best loss:" in end["text"]
    assert end["command"].endswith(str(runs.folder / "run"))
    assert leaks([SECRET], runs.folder / "run") == []
    assert "notification" not in runs.log()
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"notifications", "stalled run"}


def test_a_run_that_fails_sends_the_cause(runs, receive):
    program = receive()
    with pytest.raises(NonFiniteLossError):
        runs.train("run", *SHORT, *DIVERGE, targets(TARGET), ALL, inline=True)
    *_, skipped, failed = program.messages
    assert (skipped["event"], failed["event"]) == ("skipped_steps", "failed")
    assert "2 steps in a row" in skipped["text"]
    cause = runs.log().partition("the run has ended: ")[2].split("\n")[0]
    assert cause.startswith(failed["text"].partition(": ")[2][:100])
    assert failed["command"].startswith("transloom status ")


def test_a_stopped_run_does_not_send_that_it_finished(runs, receive, monkeypatch):
    monkeypatch.setattr(InlineSupervision, "stop_requested", lambda self: True)
    program = receive()
    stopped = runs.train("run", *SHORT, targets(TARGET), inline=True)
    assert stopped.outcome == "stopped"
    assert runs.lines("run")
    assert program.events == []


def test_by_default_a_command_gets_no_best_scores(runs, receive):
    """The default events of a recipe do not include `best_score`."""
    program = receive()
    runs.train("run", *SHORT, targets(TARGET), inline=True)
    assert runs.lines("run", "validation")
    assert program.events == ["finished"]
    assert "/bin/sh" not in (runs.folder / "run" / "recipe.yaml").read_text()


def test_programs_that_fail_or_hang_change_neither_the_run_nor_its_end(runs, monkeypatch, tmp_path):
    """Two of the eight programs end only after the run."""
    monkeypatch.setattr(delivery, "LAST_SECONDS", 0.5)
    answers = (1, 2, HANG, HANG, 3, 4, 126, 255)
    assert len(answers) == MAX_TARGETS
    for number, answer in enumerate(answers):
        program = ReceivingProgram(tmp_path / str(number), answer)
        monkeypatch.setenv(f"TRANSLOOM_{number}", program.command)
    given = (f"{{command_from: TRANSLOOM_{number}}}" for number in range(len(answers)))
    result = runs.train("run", *SHORT, targets(*given), ALL, inline=True)
    plain = runs.train("plain", *SHORT, inline=True)
    assert (result.outcome, result.step, plain.step) == ("finished", 6, 6)
    assert runs.curve("run") == runs.curve("plain")
    for number in range(len(answers)):
        assert re.search(rf"TRANSLOOM_{number} .*could not be delivered", runs.log())
    assert leaks([SECRET], runs.folder / "run") == []


def test_variables_that_are_not_set_cause_notices_and_the_run_trains(runs, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("TRANSLOOM_PAGER", "page the team")
    given = targets(TARGET, "{command_from: TRANSLOOM_PAGER}")
    result = runs.train("run", *SHORT, given, inline=True)
    assert result.outcome == "finished"
    assert f"a target gets no notifications: {VARIABLE} is not set" in runs.log()
    assert "TRANSLOOM_PAGER has no command" in runs.log()
    assert "page the team" not in runs.log()


def test_a_process_that_does_not_own_the_run_sends_nothing(runs, receive):
    program = receive()
    with Lease(runs.folder / "run", print), pytest.raises(RunInUseError):
        runs.train("run", *SHORT, targets(TARGET), ALL, inline=True)
    assert program.events == []


def test_a_run_with_ray_sends_that_it_finished(runs, ray_head, receive):
    runs.address = ray_head.address
    program = receive()
    result = runs.train("run", *SHORT, "cluster.ranks=2", targets(TARGET), ALL)
    assert result.outcome == "finished"
    assert program.events[-1] == "finished"
    assert "best_score" in program.events
    assert leaks([SECRET], runs.folder / "run") == []
