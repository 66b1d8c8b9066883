"""Requests of jobs contain names of variables without values, and the typed command."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.launchers.job_records import a_record
from support.recipes import tiny_values

from cluster.launchers.ray_job.submission import (
    SubmitOptions,
    build_request,
    job_environment,
    rebuild_request,
)
from cluster.ray.environment_file import VARIABLE
from foundation.extensions import FOLDER_VARIABLE
from run_store.errors import RunMismatchError


def pointed(recipe: Path, mode: str, **wanted: Any) -> tuple[Any, list[str]]:
    """Return the environment of the job's processes, and the messages for the user."""
    found, request = build_request(SubmitOptions(str(recipe), [f"tracking.wandb={mode}"], **wanted))
    told: list[str] = []
    environment = job_environment(found, request, told.append)
    return json.loads(environment.get(VARIABLE, "null")), told


def test_the_variables_of_wandb_are_read_from_the_file_by_name(recipe_file: Path) -> None:
    file = Path("/keys.env")
    found, told = pointed(recipe_file, "online", environment_file=file, environment=["AWS_KEY"])
    assert (found["file"], found["names"], told) == ("/keys.env", ["AWS_KEY"], [])
    assert {"WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY"} <= set(found["welcome"])
    found, _ = pointed(recipe_file, "disabled", environment_file=file)
    assert found["welcome"] == []


def test_a_missing_key_of_an_online_run_is_mentioned_at_submission(recipe_file: Path) -> None:
    _, told = pointed(recipe_file, "online")
    assert len(told) == 1
    assert "tracking.wandb is online, and neither --env-file nor --env WANDB_API_KEY" in told[0]
    for mode, names in (("online", ["WANDB_API_KEY"]), ("offline", []), ("disabled", [])):
        assert pointed(recipe_file, mode, environment=names)[1] == []


def test_a_request_has_the_typed_text(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/transloom", "submit", str(recipe_file), "seed=2"])
    _, request = build_request(SubmitOptions(str(recipe_file), ["seed=2"]))
    assert request.invocation.command == f"transloom submit {recipe_file} seed=2"


def test_a_rebuilt_request_sends_extensions_from_the_user_s_environment(
    tmp_path: Path, fresh_extensions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = tmp_path / "job" / "extensions"
    sent.mkdir(parents=True)
    (sent / "ext_sent.py").write_text("")
    values = tiny_values(tmp_path / "dataset")
    values |= {"extensions": ["ext_sent"], "extension_folder": "/on/the/nodes"}
    request = a_record(tmp_path / "run").request.model_copy(
        update={"recipe": yaml.safe_dump(values), "extensions": ("../ext_sent.py",)}
    )
    with pytest.raises(RunMismatchError, match=f"{FOLDER_VARIABLE}={sent}$"):
        rebuild_request(request, sent.parent)
    monkeypatch.setenv(FOLDER_VARIABLE, str(sent))
    for _ in range(2):  # the rebuilt request can be rebuilt again
        recipe, request = rebuild_request(request, sent.parent)
        assert recipe.extension_folder == str(sent)
        assert request.extensions == ("ext_sent.py",)
        assert request.overrides == ("seed=2", "extension_folder=null")


NOTIFY = (
    "tracking.notify.targets=[{command_from: TRANSLOOM_SLACK}, {command_from: TRANSLOOM_PAGER}]"
)


def notified(recipe: Path, **wanted: Any) -> tuple[Any, list[str]]:
    found, request = build_request(SubmitOptions(str(recipe), [NOTIFY], **wanted))
    said: list[str] = []
    environment = job_environment(found, request, said.append)
    return json.loads(environment.get(VARIABLE, "null")), said


def test_the_variables_of_notifications_are_read_from_the_file_by_name(recipe_file: Path) -> None:
    found, said = notified(recipe_file, environment_file=Path("/keys.env"), environment=["AWS_KEY"])
    assert found["names"] == ["AWS_KEY"]
    assert {"TRANSLOOM_SLACK", "TRANSLOOM_PAGER"} <= set(found["welcome"])
    assert said == []


def test_notification_variables_that_no_node_has_are_mentioned_at_submission(
    recipe_file: Path,
) -> None:
    _, (said,) = notified(recipe_file)
    assert "TRANSLOOM_SLACK, TRANSLOOM_PAGER, and neither --env-file nor --env" in said
    assert "Set them in the environment of `ray start` on the head node" in said
    _, (said,) = notified(recipe_file, environment=["TRANSLOOM_PAGER"])
    assert "reads TRANSLOOM_SLACK, and" in said
    assert "Set it" in said
    _, said_of_both = notified(recipe_file, environment=["TRANSLOOM_PAGER", "TRANSLOOM_SLACK"])
    assert said_of_both == []
