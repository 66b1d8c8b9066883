"""Command `transloom demo`: prepare, train, evaluate and translate with a phrase book."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cluster.errors import EXIT_PREEMPTED
from cluster.supervision.command_signals import (
    exit_on_signal_before_run,
    ignore_signals,
    restore_signal_handlers,
)
from foundation.terminal import Terminal, shown
from foundation.wording import counted

if TYPE_CHECKING:
    from cluster.recipe import Recipe
    from trainer.job.rank_job import Outcome

RECIPE = "phrasebook"
# The phrase book contains only the first of these sentences. Some word combinations in the others
# do not occur in it.
SENTENCES = (
    "je suis étudiant",
    "elle sera journaliste",
    "l'horloge était verte",
    "le garçon n'est pas allé au parc ce matin",
    "est-ce qu'Anne est agricultrice ?",
)


def demo() -> None:
    """Train a French–English model on a built-in phrase book: prepare, train, evaluate, translate.

    The demo needs no download and no account. Ctrl-C stops it; the same command continues it.
    """
    outcome = run_demo(Terminal())
    ignore_signals()
    raise typer.Exit(0 if outcome == "finished" else EXIT_PREEMPTED)


def run_demo(console: Terminal) -> "Outcome":
    """Prepare, train, evaluate and translate, and return the outcome of the training."""
    from cluster.recipe import find_recipe, load_recipe
    from transloom.cli.evaluate import evaluate_sets, scores_table
    from transloom.cli.explain import explanation, save_page
    from transloom.cli.prepare import prepare_dataset
    from transloom.cli.train_run import TrainOptions, train_run
    from transloom.inference.translator import Translator

    recipe = load_recipe(find_recipe(RECIPE))
    cluster = recipe.cluster
    console.rule("1 of 4: the data")
    console.print(
        "A grammar generates a phrase book of French and English sentences. SentencePiece splits "
        "them into subword pieces, and they are written as WebDataset shards.\n"
    )
    summary = prepare_dataset(recipe, console, overwrite=False)
    console.print(summary["text"], soft_wrap=True)

    console.rule("2 of 4: training")
    console.print(
        f"Ray starts on this machine: {counted(cluster.max_ranks, 'rank')} train under DeepSpeed "
        "ZeRO "
        f"{recipe.engine.zero_stage}, fed by {counted(cluster.data_workers, 'data worker')}. The "
        "sentences shown are not in the training data. Ctrl-C stops after a checkpoint; the same "
        "command continues from that checkpoint.\n"
    )
    exit_on_signal_before_run()
    result = train_run(RECIPE, [], TrainOptions(), console)
    console.print(result.outcome_text())
    if result.outcome == "stopped":
        return result.outcome
    restore_signal_handlers()

    console.rule("3 of 4: evaluation")
    translator = Translator.load(result.run)
    evaluations = evaluate_sets(translator, result.run, None, None, console)
    console.print(scores_table(evaluations), crop=False)

    console.rule("4 of 4: translation")
    for source, translation in zip(SENTENCES, translator.translate(SENTENCES), strict=True):
        console.print(shown(f"  {source}  →  ", (translation, "bold")), soft_wrap=True)
    page = explanation(translator, SENTENCES[0], None)
    saved = save_page(*page, result.run / "explain.html")
    console.print(
        _where_next(result.run, recipe, saved["file"]),
        soft_wrap=True,
    )
    return result.outcome


def _where_next(run: Path, recipe: "Recipe", page: str) -> str:
    from transloom.cli.next_steps import next_commands, own_command

    command = own_command()
    commands = next_commands(run, recipe, "elle est agricultrice")
    return f"""
The run          {run}
Its checkpoints  {run}/checkpoints
Its W&B folder   {run}/wandb  (optional: `wandb sync` uploads it)
The explanation  {page}  (open it in a browser: “{SENTENCES[0]}”, step by step)

Five commands to try next: translate, explain, see the curves, train longer, list the checkpoints.

  {commands["use"]}
  {commands["explain"]}
  {commands["curves"]}
  {command} train {RECIPE} trainer.max_steps={2 * recipe.trainer.max_steps}
  {command} checkpoints list {run}
"""
