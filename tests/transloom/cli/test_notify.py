"""`transloom notify`: a test message to each target, and what became of it."""

import json

import pytest
import yaml
from support.recipes import tiny_values
from support.webhook_server import SECRET, WebhookServer
from typer.testing import CliRunner

from cluster.errors import RecipeError
from transloom.cli.app import app

HOOK = "{kind: webhook, url_from: TRANSLOOM_HOOK_URL}"
SLACK = "{kind: slack, url_from: TRANSLOOM_SLACK_URL}"
PAGER = "{kind: command, command_from: TRANSLOOM_PAGER}"


@pytest.fixture
def notify(tmp_path, monkeypatch):
    """The command on a tiny recipe that has never been prepared; its exit code and output."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("TRANSLOOM_HOOK_URL", "TRANSLOOM_SLACK_URL", "TRANSLOOM_PAGER"):
        monkeypatch.delenv(name, raising=False)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values(tmp_path / "dataset")))

    def run(*targets, words=()):
        override = f"tracking.notify.targets=[{', '.join(targets)}]"
        result = CliRunner().invoke(app, ["notify", str(recipe), override, *words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert SECRET not in result.output
        return result.exit_code, result.output

    return run


def test_each_target_gets_a_test_message(notify, monkeypatch):
    with WebhookServer() as hook, WebhookServer() as slack:
        monkeypatch.setenv("TRANSLOOM_HOOK_URL", hook.url)
        monkeypatch.setenv("TRANSLOOM_SLACK_URL", f" {slack.url}\n")
        monkeypatch.setenv("TRANSLOOM_PAGER", '["/bin/true"]')
        code, said = notify(HOOK, SLACK, PAGER, words=["seed=9"])
    assert code == 0
    assert [line.partition(":")[0] for line in said.splitlines()] == [
        "TRANSLOOM_HOOK_URL (webhook)",
        "TRANSLOOM_SLACK_URL (slack)",
        "TRANSLOOM_PAGER (command)",
    ]
    assert said.count("delivered in") == 3
    (message,) = hook.messages
    assert (message["event"], message["run"]) == ("test", "tiny,seed=9")
    assert "finished, failed, restarts" in message["text"]
    assert "Test message for run tiny,seed=9" in slack.messages[0]["text"]


def test_a_target_that_does_not_accept_it_is_named_with_the_reason(notify, monkeypatch):
    """Once: a person who tries a configuration does not wait for repetitions."""
    with WebhookServer(404) as hook:
        monkeypatch.setenv("TRANSLOOM_HOOK_URL", hook.url)
        monkeypatch.setenv("TRANSLOOM_PAGER", '["/bin/false"]')
        code, said = notify(HOOK, SLACK, PAGER, words=["--json"])
        assert len(hook.messages) == 1
    assert code == 1
    found = {row["variable"]: row["problem"] for row in json.loads(said)["targets"]}
    assert "it answered 404 (Not Found)" in found["TRANSLOOM_HOOK_URL"]
    assert "is not set in the environment of the driver" in found["TRANSLOOM_SLACK_URL"]
    assert "exit code 1" in found["TRANSLOOM_PAGER"]


def test_a_recipe_without_targets_is_refused_with_an_example(notify):
    with pytest.raises(RecipeError, match=r"no target .* tracking\.notify\.targets, for example"):
        notify()
