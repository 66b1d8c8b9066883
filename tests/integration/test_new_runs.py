"""Runs that begin with another run's weights, end early, or continue after their end."""

import json
import shutil
from dataclasses import replace

import pytest
from support.recipes import SHORT_TRANSLATIONS, tiny_values, write_yaml
from support.records.checkpoints import header_of
from support.runs import Runs

from cluster.supervision import supervisor
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.errors import CheckpointError, RunMismatchError
from trainer.assembly import run as assembly

SHORT = ["trainer.max_steps=12", "checkpoints.every_steps=6"]


@pytest.fixture
def runs(inline_runs):
    return inline_runs


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory, phrasebook):
    """Return the runs with which several tests begin: one of 12 steps, and one that ends early."""
    folder = tmp_path_factory.mktemp("trained")
    values = tiny_values(phrasebook) | {"decoding": SHORT_TRANSLATIONS}
    recipe = write_yaml(folder / "tiny.yaml", values)
    runs = Runs(recipe, folder, address="")
    runs.train("old", *SHORT, inline=True)
    runs.train("whole", *EARLY, inline=True)
    return runs


@pytest.fixture
def old(runs, trained_once):
    """Return a copy of the run `old` of 12 steps."""
    return shutil.copytree(trained_once.folder / "old", runs.folder / "old")


@pytest.fixture
def whole(runs, trained_once):
    """Return a copy of the run `whole`, which ended early."""
    return shutil.copytree(trained_once.folder / "whole", runs.folder / "whole")


def test_a_new_run_begins_with_the_weights_of_an_old_one(runs, old):
    """The new run has new moments, another schedule and other data, and keeps its parent's
    identity.
    """
    new = [f"trainer.init_from={old}@6", "trainer.schedule.warmup_steps=40", "seed=9"]
    runs.train("new", *SHORT, *new, inline=True)
    assert [line["step"] for line in runs.lines("new")] == list(range(1, 13))
    fresh, inherited = runs.curve("old"), runs.curve("new")
    assert inherited[0] < fresh[2]  # lower than with untrained weights
    old_card = json.loads((runs.folder / "old" / "run.json").read_text())
    for checkpoint in list_checkpoints(runs.folder / "new" / "checkpoints"):
        parent = header_of(checkpoint).parent
        assert (parent.run_id, parent.step) == (old_card["id"], 6)
    assert header_of(checkpoint).optimizer_step == 12


def test_the_old_run_may_be_removed_once_the_new_run_has_a_checkpoint(runs, old):
    options = [*SHORT, f"trainer.init_from={old}"]
    runs.train("new", *options, inline=True)
    old.rename(runs.folder / "gone")
    result = runs.train("new", *options, "trainer.max_steps=14", inline=True)
    assert (result.outcome, result.step) == ("finished", 14)
    with pytest.raises(RunMismatchError):
        runs.train("another", *options, inline=True)


def test_weights_of_a_different_model_are_refused_with_the_parameter_and_both_shapes(runs, old):
    with pytest.raises(CheckpointError):
        runs.train(
            "new", f"trainer.init_from={old}", "model.feed_forward_width=48",
            inline=True,
        )  # fmt: skip


EARLY = [
    "trainer.max_steps=400",
    "trainer.validate_every_steps=4",
    "trainer.early_stopping={metric: bleu, patience: 3}",  # the BLEU of a tiny model stays 0
    "checkpoints.every_steps=10",
]


def test_early_stopping_ends_at_the_same_step_after_any_number_of_restarts(runs, whole):
    whole = runs.train("whole", *EARLY, inline=True)  # the run has already ended
    assert whole.outcome == "finished"
    best = header_of(whole.checkpoint).early_stopping
    assert whole.step == best.best_step + 3 * 4 < 400
    for stop in (5, 10, 400):
        parts = runs.train("parts", *EARLY, f"trainer.max_steps={stop}", inline=True)
    # The stops at 5 and 10 were ends of the run, so each had a validation.
    assert parts.outcome == "finished"
    assert header_of(parts.checkpoint).early_stopping.validations_since_best == 3


def test_a_run_that_ended_early_continues_with_more_patience(runs, whole):
    ended = runs.lines("whole")[-1]["step"]
    more = [*EARLY[:2], "trainer.early_stopping={metric: bleu, patience: 5}", EARLY[3]]
    assert runs.train("whole", *more, inline=True).step == ended + 2 * 4


def test_a_finished_run_is_reported_without_starting_anything(runs, monkeypatch):
    """The run's record stays unchanged, without a restart."""
    before = runs.train("finished", "trainer.max_steps=2", inline=True)
    record = (before.run / "metrics.jsonl").read_bytes()

    def refuse(*_, **__):
        raise AssertionError("it was started")

    monkeypatch.setattr(supervisor, "ray_session", refuse)
    monkeypatch.setattr(assembly, "build_rank", refuse)
    for inline in (False, True):
        again = runs.train("finished", "trainer.max_steps=2", inline=inline)
        assert again == replace(before, began_at=2)
    assert (before.run / "metrics.jsonl").read_bytes() == record
    with pytest.raises(AssertionError, match="it was started"):
        runs.train("finished", "trainer.max_steps=3", inline=True)


def test_the_moving_average_is_restored_from_a_checkpoint(runs, tmp_path):
    """10 + 10 steps give the same files as 20 steps, including those of the moving average."""
    ema = ["trainer.ema_decay=0.9", "checkpoints.every_steps=10"]
    runs.train("whole", *ema, "trainer.max_steps=20", inline=True)
    runs.train("parts", *ema, "trainer.max_steps=10", inline=True)
    runs.train("parts", *ema, "trainer.max_steps=20", inline=True)
    assert runs.curve("parts") == runs.curve("whole")
    files = [
        {record.name: record.sha256 for record in header_of(newest).files}
        for name in ("whole", "parts")
        for newest in list_checkpoints(runs.folder / name / "checkpoints")[-1:]
    ]
    assert files[0] == files[1]


def test_a_recipe_can_name_its_parent_run(tmp_path, phrasebook):
    """The parent is set in the YAML, as it can be on the command line."""
    from cluster.recipe import load_recipe

    values = tiny_values(phrasebook, init_from="runs/old@6")
    path = write_yaml(tmp_path / "child.yaml", values)
    assert load_recipe(path, []).trainer.init_from == "runs/old@6"
