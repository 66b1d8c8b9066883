"""Runs that send notifications: what arrives, what a bad server does, and where the secret is not.

The driver of each run is this process.
"""

import json
import re
import sys
import threading
from contextlib import ExitStack

import pytest
from support.canaries import leaks
from support.webhook_server import SECRET, Misbehaviour, WebhookServer

from cluster.notify import delivery
from cluster.supervision.inline import InlineSupervision
from trainer.checkpoints.lease import Lease
from trainer.errors import NonFiniteLossError, RunInUseError
from trainer.notify_config import EVENTS

URL, COMMAND = "TRANSLOOM_HOOK_URL", "TRANSLOOM_NOTIFY_COMMAND"
HOOK = f"{{kind: webhook, url_from: {URL}}}"
PROGRAM = f"{{kind: command, command_from: {COMMAND}}}"
ALL = f"tracking.notify.events=[{', '.join(EVENTS)}]"
SHORT = ["trainer.max_steps=6"]  # which is validated and saved at its end
# The second step is not finite, nor is any later one.
DIVERGE = [
    "trainer.schedule.warmup_steps=0",
    "trainer.schedule.peak_learning_rate=1e30",
]


def targets(*given):
    return f"tracking.notify.targets=[{', '.join(given)}]"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    pauses = tuple(pause / 100 for pause in delivery.PAUSES_SECONDS)
    monkeypatch.setattr(delivery, "PAUSES_SECONDS", pauses)


@pytest.fixture
def runs(inline_runs):
    return inline_runs


def log_of(runs, name="run"):
    return (runs.folder / name / "log.txt").read_text()


def test_a_run_sends_its_best_scores_and_its_end(runs, monkeypatch):
    with WebhookServer(500, 200) as server:
        monkeypatch.setenv(URL, server.url)
        options = [*SHORT, "trainer.validate_every_steps=3", targets(HOOK), ALL]
        result = runs.train("run", *options, inline=True)
        again = runs.train("run", *options, inline=True)
    assert (result.outcome, again.outcome) == ("finished", "finished")
    first, repeated, *others = server.messages
    assert first == repeated  # after the 500
    assert {message["event"] for message in others} <= {"best_score", "finished"}
    *_, end = others
    assert end["event"] == "finished"
    assert server.events.count("finished") == 1  # none of the second start, which found the end
    scores = {
        line["step"]: line["scores"]["loss"]["value"] for line in runs.lines("run", "validation")
    }
    best = min(scores.values())
    assert end["score"] == {"name": "loss", "value": best}
    assert first["score"]["value"] == scores[3]
    assert (end["run"], end["step"], end["max_steps"]) == ("run", 6, 6)
    assert "trained to step 6. Best loss:" in end["text"]
    assert end["command"].endswith(str(runs.folder / "run"))
    assert leaks([SECRET], runs.folder) == []
    assert "notification" not in log_of(runs)
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"notifications", "stalled run"}


def test_a_run_that_fails_sends_its_cause(runs, monkeypatch):
    with WebhookServer() as server:
        monkeypatch.setenv(URL, server.url)
        with pytest.raises(NonFiniteLossError):
            runs.train("run", *SHORT, *DIVERGE, targets(HOOK), ALL, inline=True)
    *_, skipped, failed = server.messages
    assert (skipped["event"], failed["event"]) == ("skipped_steps", "failed")
    assert "2 steps in a row" in skipped["text"]
    cause = log_of(runs).partition("the run has ended: ")[2].split("\n")[0]
    assert cause.startswith(failed["text"].partition(": ")[2][:100])
    assert failed["command"].startswith("transloom status ")


def test_a_stopped_run_has_not_finished(runs, monkeypatch):
    monkeypatch.setattr(InlineSupervision, "stop_requested", lambda self: True)
    with WebhookServer() as server:
        monkeypatch.setenv(URL, server.url)
        stopped = runs.train("run", *SHORT, targets(HOOK), inline=True)
    assert stopped.outcome == "preempted"
    assert runs.lines("run")
    assert server.events == []


APPEND = """
import sys
with open(sys.argv[1], "ab") as file:
    file.write(sys.stdin.buffer.read() + bytes([10]))
"""


def test_a_command_gets_the_events_of_the_recipe_alone(runs, monkeypatch):
    """By default these are without the best scores."""
    file = runs.folder / "received"
    monkeypatch.setenv(COMMAND, json.dumps([sys.executable, "-c", APPEND, str(file)]))
    runs.train("run", *SHORT, targets(PROGRAM), inline=True)
    assert runs.lines("run", "validation")
    (message,) = map(json.loads, file.read_text().splitlines())
    assert message["event"] == "finished"
    assert "import" not in (runs.folder / "run" / "recipe.yaml").read_text()


def test_bad_servers_change_neither_the_run_nor_its_end(runs, monkeypatch):
    """Two of them answer nothing until after the run has ended."""
    monkeypatch.setattr(delivery, "LAST_SECONDS", 0.5)
    answers = (503, Misbehaviour.CLOSE, Misbehaviour.HANG, Misbehaviour.DRIP)
    with ExitStack() as stack:
        hooks = []
        for number, answer in enumerate(answers):
            server = stack.enter_context(WebhookServer(answer))
            monkeypatch.setenv(f"TRANSLOOM_{number}", server.url)
            hooks.append(f"{{kind: webhook, url_from: TRANSLOOM_{number}}}")
        result = runs.train("run", *SHORT, targets(*hooks), ALL, inline=True)
        plain = runs.train("plain", *SHORT, inline=True)
    assert (result.outcome, result.step, plain.step) == ("finished", 6, 6)
    assert runs.curve("run") == runs.curve("plain")
    for number in range(len(answers)):
        assert re.search(rf"TRANSLOOM_{number} .*could not be delivered", log_of(runs))
    assert leaks([SECRET], runs.folder) == []


def test_variables_that_are_not_set_are_notices_and_the_run_trains(runs, monkeypatch):
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.setenv(COMMAND, "page the team")
    result = runs.train("run", *SHORT, targets(HOOK, PROGRAM), inline=True)
    assert result.outcome == "finished"
    assert f"a target gets no notifications: {URL} is not set" in log_of(runs)
    assert f"{COMMAND} has no command" in log_of(runs)
    assert "page the team" not in log_of(runs)


def test_a_process_that_does_not_own_the_run_sends_nothing(runs, monkeypatch):
    with WebhookServer() as server:
        monkeypatch.setenv(URL, server.url)
        with Lease(runs.folder / "run", print), pytest.raises(RunInUseError):
            runs.train("run", *SHORT, targets(HOOK), ALL, inline=True)
    assert server.events == []


def test_a_run_under_ray_sends_its_end(runs, ray_head, monkeypatch):
    runs.address = ray_head.address
    with WebhookServer() as server:
        monkeypatch.setenv(URL, server.url)
        result = runs.train("run", *SHORT, "cluster.ranks=2", targets(HOOK), ALL)
    assert result.outcome == "finished"
    assert server.events[-1] == "finished"
    assert "best_score" in server.events
    assert leaks([SECRET], runs.folder) == []
