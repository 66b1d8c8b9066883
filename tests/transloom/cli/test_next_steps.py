"""The next commands that a finished run suggests can be pasted into a shell."""

import shlex
import shutil
from pathlib import Path

import pytest
import typer
from support import tasks
from support.recipes import tiny_recipe
from typer.testing import CliRunner

from cluster.recipe import Recipe
from transloom.cli.app import app
from transloom.cli.next_steps import next_commands
from transloom.cli.train_run import TrainResult

SAMPLE = "où est l'école ?"
OF_TASK = {
    "causal_lm": tasks.language_model_values,
    "masked_lm": tasks.masked_values,
    "sentence_embedding": tasks.embedding_values,
    "token_classification": tasks.case_values,
    "tlm": tasks.pair_masked_values,
}


def arguments(command):
    """Return the arguments of a `transloom` command, and the text piped into it or None."""
    *piped, own = command.split(" | ")
    name, *words = shlex.split(own)
    assert name == "transloom"
    return words, " ".join(shlex.split(piped[0])[1:]) if piped else None


@pytest.mark.long
def test_the_suggested_commands_of_a_translation_run_succeed(untrained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("runs") / "it's mine,seed=2"
    shutil.copytree(untrained_run.path, run)
    found = next_commands(run, tiny_recipe(tmp_path), SAMPLE)
    assert [arguments(command)[0][0] for command in found.values()] == [
        "translate",
        "evaluate",
        "explain",
        "dashboard",
    ]
    assert arguments(found["use"])[1] == SAMPLE
    for kind in ("use", "evaluate", "explain"):
        words, text = arguments(found[kind])
        result = CliRunner().invoke(app, words, input=f"{text}\n")
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("task", OF_TASK)
def test_the_suggested_commands_of_every_task_have_valid_options(task, tmp_path):
    recipe = Recipe.of(OF_TASK[task](tmp_path))
    found = next_commands(Path("runs/x"), recipe, SAMPLE)
    assert shlex.split(found["use"])[1] == recipe.kind.command
    for command in found.values():
        (name, *words), _ = arguments(command)
        (known,) = [c for n, c in typer.main.get_command(app).commands.items() if n == name]
        known.make_context(name, words)  # raises an error for unknown options


def test_a_suggestion_omits_a_sample_that_the_command_would_refuse(tmp_path):
    for sample in (None, "two\nlines", "--help", "long " * 100, "\x1b[31mred"):
        words, text = arguments(next_commands(tmp_path, tiny_recipe(tmp_path), sample)["use"])
        assert words[0] == "translate"
        assert text == "A TEXT"
    masked = Recipe.of(tasks.masked_values(tmp_path))
    for sample, is_taken in (("no mask", False), ("a [MASK] b", True)):
        (*_, text), _ = arguments(next_commands(tmp_path, masked, sample)["use"])
        assert (text == sample) is is_taken
        assert "[MASK]" in text


def result(recipe, outcome="finished", began_at=0, step=40):
    return TrainResult(outcome, Path("runs/x"), "runs/x", recipe, began_at, step, None, None)


def test_only_a_finished_run_suggests_next_commands(tmp_path):
    recipe = tiny_recipe(tmp_path, max_steps=40)
    text = result(recipe).text()
    assert "Finished at step 40" in text
    assert all(command in text for command in next_commands(Path("runs/x"), recipe, None).values())
    assert "transloom translate" not in result(recipe, "stopped").text()


def test_resuming_a_finished_run_reports_its_step_and_max_steps(tmp_path):
    text = result(tiny_recipe(tmp_path, max_steps=20), began_at=40).text()
    assert "already at step 40" in text
    assert "trainer.max_steps is 20" in text
    assert "Finished" not in text
    stopped_early = result(tiny_recipe(tmp_path, max_steps=90), began_at=40).text()
    assert "stopped early at step 40" in stopped_early
    assert "trainer.early_stopping.patience" in stopped_early
