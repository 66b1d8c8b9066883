"""`transloom notify`: send a test message to each target and report the results."""

import json

import pytest
from support.invocation import invoke
from support.receiving_program import SECRET, ReceivingProgram
from support.recipes import tiny_values, write_yaml

from cluster.errors import RecipeError

MAIL, SLACK, PAGER = (f"{{command_from: TRANSLOOM_{name}}}" for name in ("MAIL", "SLACK", "PAGER"))


@pytest.fixture
def notify(tmp_path, monkeypatch):
    """Return a function that runs `notify` on an unprepared recipe: exit code and output."""
    for name in ("TRANSLOOM_MAIL", "TRANSLOOM_SLACK", "TRANSLOOM_PAGER"):
        monkeypatch.delenv(name, raising=False)
    recipe = write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))

    def run(*targets, words=()):
        override = f"tracking.notify.targets=[{', '.join(targets)}]"
        result = invoke("notify", recipe, override, *words, code=None)
        assert SECRET not in result.output
        return result.exit_code, result.output

    return run


def test_notify_sends_a_test_message_to_each_target(notify, monkeypatch, tmp_path):
    mail, slack = ReceivingProgram(tmp_path / "mail"), ReceivingProgram(tmp_path / "slack")
    monkeypatch.setenv("TRANSLOOM_MAIL", mail.command)
    monkeypatch.setenv("TRANSLOOM_SLACK", f" {slack.command}\n")
    monkeypatch.setenv("TRANSLOOM_PAGER", '["/bin/true"]')
    code, said = notify(MAIL, SLACK, PAGER, words=["seed=9"])
    assert code == 0
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        "TRANSLOOM_MAIL",
        "TRANSLOOM_SLACK",
        "TRANSLOOM_PAGER",
    ]
    assert said.count("delivered in") == 3
    for program in (mail, slack):
        (message,) = program.messages
        assert (message["event"], message["run"]) == ("test", "tiny,seed=9")
        assert "Test message for run tiny,seed=9" in message["text"]
        assert "finished, failed, stopped, restarts" in message["text"]


def test_notify_reports_why_a_target_failed(notify, monkeypatch, tmp_path):
    """Each target is tried only once, because a user waits for the result."""
    mail = ReceivingProgram(tmp_path / "mail", 3)
    monkeypatch.setenv("TRANSLOOM_MAIL", mail.command)
    monkeypatch.setenv("TRANSLOOM_PAGER", '["/no/such/program"]')
    code, said = notify(MAIL, SLACK, PAGER, words=["--json"])
    assert len(mail.messages) == 1
    assert code == 1
    found = {row["variable"]: row["problem"] for row in json.loads(said)["targets"]}
    assert "exit code 3" in found["TRANSLOOM_MAIL"]
    assert "is not set in the environment of the driver" in found["TRANSLOOM_SLACK"]
    assert "cannot be started: No such file" in found["TRANSLOOM_PAGER"]


def test_notify_refuses_a_recipe_without_targets(notify):
    with pytest.raises(RecipeError, match=r"no target .* tracking\.notify\.targets, for example"):
        notify()
