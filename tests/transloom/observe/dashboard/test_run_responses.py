"""Responses about a run's environment, commands, marks and job, from the run's folder."""

from pathlib import Path

import pytest
from support.launchers.job_records import a_record
from support.records.lines import SPIKE_FIELDS, skipped_line
from support.records.run_folders import made_run, with_checkpoint, with_status

from cluster.launchers.ray_job.job_record import JobFolder
from run_store.checkpoints.format import read_header
from run_store.folder import RunFolder
from run_store.record.run_status import run_status_of
from run_store.start import Code, Invocation, Start
from transloom.observe.dashboard.run_responses import commands_of, environment_of, marks_of
from transloom.observe.dashboard.runs_folder import RunsFolder
from transloom.observe.dashboard.table import RunsTable

START = Start(
    since="2026-11-22T10:00:00+00:00",
    invocation=Invocation(
        command="transloom train phrasebook seed=2", project=Code(commit="a" * 40, dirty=True)
    ),
    code=None,
    versions={"python": "3.11.9", "torch": "2.13.0"},
)


def test_the_environment_comes_from_the_start_and_the_checkpoint(tmp_path: Path) -> None:
    path = made_run(tmp_path / "run")
    with_checkpoint(path, 7)
    header = read_header(path / "checkpoints" / "step-00000007")
    known = environment_of(run_status_of(with_status(path, start=START)))
    assert known["torch"] == "2.13.0"
    assert known["commit of project"] == "a" * 40 + ", changed"
    assert "commit of transloom" not in known
    assert known["dataset"] == header.dataset_identity
    assert header.numerics.items() <= known.items()


def test_the_users_command_is_listed_before_derived_commands(tmp_path: Path) -> None:
    run = RunFolder(made_run(tmp_path / "my run"))
    status = run_status_of(with_status(run.path, start=START))
    typed, train, compare, replay = commands_of(run, status)
    assert typed == "transloom train phrasebook seed=2"
    assert train == f"transloom train '{run.recipe}' --run '{run.path}'-again"
    assert compare == f"transloom compare '{run.path}' '{run.path}'-again"
    assert replay == f"transloom replay '{run.path}' --steps 1:20"


def test_a_run_without_a_recorded_start_has_only_derived_commands(tmp_path: Path) -> None:
    run = RunFolder(made_run(tmp_path / "run"))
    status = run_status_of(run.path)
    assert environment_of(status) == {}
    assert len(commands_of(run, status)) == 3


@pytest.mark.parametrize("recipe", ["extension_folder: /theirs\n", "", "a: ["])
def test_the_train_command_of_a_run_loads_no_code_of_the_run(tmp_path: Path, recipe) -> None:
    run = RunFolder(made_run(tmp_path / "run"))
    run.recipe.write_text(recipe)
    train, *_ = commands_of(run, run_status_of(with_status(run.path)))
    assert "recipe.yaml extension_folder=null --run " in train


def test_the_mark_of_a_skipped_step_names_the_cause() -> None:
    bad, spike = marks_of([skipped_line(3), skipped_line(4, **SPIKE_FIELDS)])
    assert bad.words == "not applied: its loss or gradient was not finite in 1 slot"
    assert spike.words == "not applied: its loss 9.5 was above the threshold 4.25"
    assert spike.details == {
        **{"cause": "spike", "slots": [1], "ranks": [0], "in_a_row": 1},
        **{"loss": 9.5, "grad_norm": 1.5},
    }


def test_a_waiting_job_is_listed_with_its_owner_and_reason(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path / "new", "mine")
    folder.path.mkdir(parents=True)
    folder.write(a_record(tmp_path / "new", state="WAITING", waits_for="capacity"))
    table = RunsTable(RunsFolder(tmp_path))
    (row,) = table.answer().runs
    standing = row.standing
    assert (standing.state, standing.reason) == ("waiting", "capacity")
    assert (standing.job_owner, standing.priority) == ("ada", 70)
    folder.write(a_record(tmp_path / "new", state="STOPPED"))
    (row,) = table.answer().runs
    assert row.standing.state == "unknown"
