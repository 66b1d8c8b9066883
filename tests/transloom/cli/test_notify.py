"""`transloom notify`: a test message to each target, and what became of it."""

import json

import pytest
from support.invocation import invoke
from support.receiving_program import SECRET, ReceivingProgram
from support.recipes import tiny_values, write_yaml

from cluster.errors import RecipeError

MAIL, SLACK, PAGER = (f"{{command_from: TRANSLOOM_{name}}}" for name in ("MAIL", "SLACK", "PAGER"))


@pytest.fixture
def notify(tmp_path, monkeypatch):
    """The command on a tiny recipe that has never been prepared; its exit code and output."""
    for name in ("TRANSLOOM_MAIL", "TRANSLOOM_SLACK", "TRANSLOOM_PAGER"):
        monkeypatch.delenv(name, raising=False)
    recipe = write_yaml(tmp_path / "tiny.yaml", tiny_values(tmp_path / "dataset"))

    def run(*targets, words=()):
        override = f"tracking.notify.targets=[{', '.join(targets)}]"
        result = invoke("notify", recipe, override, *words, code=None)
        assert SECRET not in result.output
        return result.exit_code, result.output

    return run


def test_each_target_gets_a_test_message(notify, monkeypatch, tmp_path):
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


def test_a_target_that_does_not_accept_it_is_named_with_the_reason(notify, monkeypatch, tmp_path):
    """Once: a person who tries a configuration does not wait for repetitions."""
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


def test_a_recipe_without_targets_is_refused_with_an_example(notify):
    with pytest.raises(RecipeError, match=r"no target .* tracking\.notify\.targets, for example"):
        notify()
