"""Sweeps: the runs that they consist of, and the order in which these are trained.

tests/integration/test_sweep.py trains a sweep on a cluster.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.records.lines import train_line, validation_line
from support.records.run_folders import made_run, with_checkpoint, with_owner

from cluster.errors import RecipeError
from cluster.recipe import load_recipe
from transloom.cli import sweep_runs as sweep_module
from transloom.cli.sweep_points import SweepPoint, sweep_points
from transloom.cli.sweep_runs import Sweep
from transloom.cli.sweep_views import sweep_table


def test_a_sweep_has_a_run_for_every_combination_of_values(recipe_file):
    given = ["seed=3,4", "model.dropout=0.1, 0.3", "trainer.max_steps=7"]
    points = sweep_points(recipe_file, given, Path("runs"))
    assert [point.run.name for point in points] == [
        "tiny",
        "tiny,model.dropout=0.3",
        "tiny,seed=4",
        "tiny,seed=4,model.dropout=0.3",
    ]
    assert points[3].changed == {"seed": "4", "model.dropout": "0.3"}
    assert points[3].max_steps == 7
    loaded = load_recipe(recipe_file, points[3].overrides)
    assert (loaded.seed, loaded.model.dropout, loaded.trainer.max_steps) == (4, 0.3, 7)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ("trainer.optimizer.betas=[0.9,0.98],[0.8, 0.9]", [(0.9, 0.98), (0.8, 0.9)]),
        ("trainer.optimizer.epsilon=1.0e-9,1.0e-6", [1e-9, 1e-6]),
        ("tokenizer.type=bpe,'unigram'", ["bpe", "unigram"]),
    ],
)
def test_sweep_values_are_yaml_separated_by_commas(recipe_file, given, values):
    found = []
    for point in sweep_points(recipe_file, [given], Path("runs")):
        value = load_recipe(recipe_file, point.overrides)
        for part in given.partition("=")[0].split("."):
            value = getattr(value, part)
        found.append(value)
    assert found == values


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["seed=1"], "make 1 run, expected 2 to 1,000"),
        (["seed=" + ",".join(map(str, range(1001)))], "make 1,001 runs"),
        (["seed=1,1"], "seed=1 and seed=1 would be the same run, tiny,seed=1"),
        (["cluster.ranks=1,2"], "cluster.ranks=1 and cluster.ranks=2 would be the same run, tiny"),
        (["seed="], "has no value"),
        (["seed"], "not of the form KEY=VALUE"),
        (["seed=[1,2"], "has no valid list of values"),
        (["seed=1,2", "name=2026-01-01,2026-01-02"], "has a value that no field accepts"),
        (["seed=1,two"], "seed is 'two'"),
        (["sed=1,2"], "did you mean seed?"),
    ],
)
def test_an_invalid_sweep_is_refused(recipe_file, given, told):
    with pytest.raises(RecipeError) as error:
        sweep_points(recipe_file, given, Path("runs"))
    assert told in str(error.value)


class Child:
    """A process of a run, which ends when the test sets its exit code or asks it to stop."""

    def __init__(self, stage, point):
        self.stage, self.point, self.code, self.asked = stage, point, None, 0

    def poll(self):
        return self.code

    def ask_to_stop(self):
        self.asked += 1
        self.code = 75


class Stage:
    """The points of a sweep, and the children that replace the processes of runs."""

    def __init__(self, folder, count):
        folders = [folder / f"run-{n}" for n in range(count)]
        self.points = [
            SweepPoint((f"seed={n}",), {"seed": str(n)}, path, str(path), 2)
            for n, path in enumerate(folders)
        ]
        self.children = []
        self.most = 0
        self.signals = SimpleNamespace(asked=0)
        self.notices = []

    def start(self, point):
        self.children.append(Child(self, point))
        self.most = max(self.most, len(self.training))
        return self.children[-1]

    @property
    def training(self):
        return [child for child in self.children if child.code is None]

    def sweep(self, at_once=1):
        return Sweep(self.points, at_once, self.start, self.notices.append)

    def finish(self, child, code=0):
        if code == 0:
            run = made_run(child.point.run, train_line(2), validation_line(2), max_steps=2)
            with_checkpoint(run, 2)
        child.code = code


@pytest.fixture
def stage(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_module, "POLL_SECONDS", 0.0)
    return Stage(tmp_path, 4)


def names(children):
    return [child.point.run.name for child in children]


def test_the_number_of_concurrent_runs_is_limited(stage):
    def show():
        if len(stage.training) == 2 or len(stage.children) == 4:
            for child in stage.training:
                stage.finish(child)

    sweep = stage.sweep(at_once=2)
    assert sweep.train(stage.signals, show) == 0
    assert stage.most == 2
    assert names(stage.children) == [f"run-{n}" for n in range(4)]
    assert "best BLEU (greedy)" in sweep_table(sweep.runs).plain()


def test_a_failed_run_does_not_end_the_sweep_and_is_reported(stage):
    def show():
        for child in stage.training:
            if failed := child.point.run.name == "run-1":
                child.point.run.mkdir()
                (child.point.run / "output.txt").write_text("step 1\nerror: no\nroom")
            stage.finish(child, code=1 if failed else 0)

    sweep = stage.sweep()
    assert sweep.train(stage.signals, show) == 1
    assert [run.state for run in sweep.runs] == ["finished", "failed", "finished", "finished"]
    assert sweep.runs[1].reason == "no room"
    assert sweep.outcome() == "4 runs: 3 finished, 1 failed"
    assert "failed: no room" in sweep_table(sweep.runs).plain()
    assert "30.0 (step 2)" in sweep_table(sweep.runs).plain()


def test_a_stop_request_stops_the_runs_and_the_sweep_can_be_resumed(stage):
    def show():
        if len(stage.children) == 3:
            stage.signals.asked = 1
        elif len(stage.training) == 2:
            stage.finish(stage.children[0])

    sweep = stage.sweep(at_once=2)
    assert sweep.train(stage.signals, show) == 75
    assert [run.state for run in sweep.runs] == ["finished", "stopped", "stopped", "waiting"]
    assert [child.asked for child in stage.children] == [0, 1, 1]

    stage.signals.asked, stage.children = 0, []
    sweep = stage.sweep()
    assert sweep.train(stage.signals, lambda: [stage.finish(c) for c in stage.training]) == 0
    assert names(stage.children) == ["run-1", "run-2", "run-3"]
    assert "run-0: already finished, at step 2" in stage.notices


def test_an_error_in_the_sweep_stops_its_runs(stage):
    def show():
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="the terminal is gone"):
        stage.sweep(at_once=2).train(stage.signals, show)
    assert [child.asked for child in stage.children] == [1, 1]


def test_a_sweep_resumes_a_finished_run_if_max_steps_is_larger(stage):
    for point in stage.points:
        with_checkpoint(made_run(point.run, train_line(2), max_steps=2), 2)
    stage.points[1] = replace(stage.points[1], max_steps=3)
    assert (
        stage.sweep().train(stage.signals, lambda: [c.ask_to_stop() for c in stage.training]) == 75
    )
    assert names(stage.children) == ["run-1"]


def test_a_sweep_waits_for_a_run_that_another_process_trains(stage):
    run = with_owner(made_run(stage.points[0].run, train_line(1), max_steps=2))

    def show():
        if stage.children:
            for child in stage.training:
                child.code = 0
        else:
            with_owner(run, released=True)
            (run / "owners" / "00000007.json").unlink(missing_ok=True)

    assert stage.sweep().train(stage.signals, show) == 0
    waits = "run-0: another process trains this run; waiting for that process"
    assert stage.notices.count(waits) == 1
    assert names(stage.children)[0] == "run-0"


def test_a_stopped_sweep_does_not_stop_a_run_of_another_process(stage):
    with_owner(made_run(stage.points[0].run, train_line(1), max_steps=2))
    sweep = stage.sweep()

    def show():
        stage.signals.asked = 1

    assert sweep.train(stage.signals, show) == 75
    assert [run.state for run in sweep.runs] == ["waiting"] * 4
