"""Record the user's command and the version of the code, without secrets."""

import os
from importlib import metadata
from pathlib import Path

import pytest
from support.command import run_command
from support.recipes import tiny_values
from typer.testing import CliRunner

from cluster.errors import ClusterError
from cluster.recipe import Recipe
from cluster.supervision import invocation
from cluster.supervision.invocation import (
    as_variable,
    claim_of,
    code_of,
    current_claim,
    current_invocation,
    current_start,
    current_user,
)
from run_store.start import Claim, Code, Invocation
from transloom.cli.app import app

SECRET = "hunter2secret"


def git(folder: Path, *arguments: str) -> str:
    names = {
        f"GIT_{who}_{what}": "x@y.z"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    names["GIT_CONFIG_GLOBAL"] = os.devnull
    done = run_command("git", "-C", folder, *arguments, **names)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "remote", "add", "origin", f"https://me:{SECRET}@host/repo")
    (folder / "recipe.yaml").write_text("name: a\n")
    git(folder, "add", "recipe.yaml")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_checkout_has_a_commit_and_a_mark_for_changes(project: Path) -> None:
    commit = git(project, "rev-parse", "HEAD")
    (project / "runs").mkdir()
    (project / "runs" / "log.txt").write_text("of a run, which git does not know")
    assert code_of(project / "runs") == Code(commit=commit, dirty=False)
    (project / "recipe.yaml").write_text("name: b\n")
    assert code_of(project) == Code(commit=commit, dirty=True)
    git(project, "commit", "--quiet", "-a", "-m", "second")
    now = code_of(project)
    assert now is not None
    assert now.commit != commit
    assert not now.dirty


def test_the_version_shows_a_commit_only_of_transloom_s_checkout(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version() -> str:
        return CliRunner().invoke(app, ["--version"]).stdout

    number = metadata.version("transloom")
    commit = git(project, "rev-parse", "HEAD")[:8]
    monkeypatch.setattr(invocation, "INSTALLATION", project)
    assert version() == f"{number} (commit {commit})\n"
    (project / "recipe.yaml").write_text("name: b\n")
    assert version() == f"{number} (commit {commit}, with changes)\n"
    packages = project / "packages"  # an installation inside the checkout of another project
    packages.mkdir()
    monkeypatch.setattr(invocation, "INSTALLATION", packages)
    assert version() == f"{number}\n"


def test_a_folder_without_a_checkout_has_no_commit(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of(tmp_path) is None
    assert code_of(tmp_path / "nowhere") is None
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "--quiet")
    assert code_of(empty) is None
    monkeypatch.setenv("PATH", str(empty))
    assert code_of(project) is None


def test_git_s_environment_variables_do_not_select_a_checkout(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))
    assert code_of(tmp_path) is None


def test_programs_in_a_checkout_s_configuration_are_not_run(project: Path, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    hook.chmod(0o700)
    git(project, "config", "core.fsmonitor", str(hook))
    assert code_of(project)
    assert not (tmp_path / "started").exists()


def test_a_command_is_shown_as_typed_without_its_secrets(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    url = f"https://me:{SECRET}@host/data?token={SECRET}"
    argv = ["/bin/transloom", "train", "a recipe.yaml", f"data.dataset={url}"]
    monkeypatch.setattr("sys.argv", argv)
    found = current_invocation()
    assert found.command is not None
    assert found.command.startswith("transloom train 'a recipe.yaml' ")
    assert found.project == code_of(project)
    assert SECRET not in current_start().model_dump_json()
    assert current_start().since.endswith("+00:00")


def test_a_job_reports_the_command_of_its_submission(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["-c", "train", "recipe.yaml"])
    assert current_invocation() == Invocation()
    typed = Invocation(
        command="transloom submit tiny.yaml", project=Code(commit="a" * 40, dirty=False)
    )
    for name, value in as_variable(typed).items():
        monkeypatch.setenv(name, value)
    assert current_invocation() == typed
    monkeypatch.setenv(invocation.VARIABLE, '{"of": "another version"}')
    assert current_invocation() == Invocation()


def test_a_start_records_the_versions_of_packages() -> None:
    versions = current_start().versions
    assert {"python", "torch", "ray", "wandb"} <= versions.keys()


@pytest.mark.parametrize("user", ["ada", "DOM\\ada", "\x1b[2J", "=cmd", "x" * 200])
def test_the_name_of_any_user_becomes_a_valid_owner(
    user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: user)
    assert current_claim() == Claim(owner=current_user())
    monkeypatch.setenv(invocation.CLAIM_VARIABLE, Claim(owner="eve").model_dump_json())
    assert current_claim().owner == "eve"


@pytest.mark.parametrize(
    ("owner", "priority"),
    [("a", -1), ("a", 101), ("a", 10**30), ("", 50), ("<b>", 50), ("=1+1", 50), ("a\nb", 50)],
)
def test_an_invalid_owner_or_priority_is_refused_with_its_value(owner: str, priority: int) -> None:
    recipe = Recipe.of(tiny_values(Path("/data")))
    assert claim_of(recipe, "ada@host", 100).priority == 100
    with pytest.raises(ClusterError, match="cannot be used") as refusal:
        claim_of(recipe, owner, priority)
    assert repr(owner) in str(refusal.value)
    assert f"--priority {priority}" in str(refusal.value)
