"""The command line. Each command is a few lines; the work is done where it belongs.

Exit codes: 0 done, 75 preempted and resumable, 1 failed, 2 wrong usage or recipe.
Heavy imports stand inside the commands, so that `--help` answers at once.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.checkpoints import checkpoints_app
from cluster.cli.compare import compare
from cluster.cli.control import stop, workers
from cluster.cli.data import data_app
from cluster.cli.deploy import deploy_app
from cluster.cli.jobs import jobs_app, submit
from cluster.cli.options import (
    AlignmentsOption,
    BeamOption,
    CheckpointOption,
    JsonOption,
    LongLinesOption,
    MaxTokensOption,
    MovedDatasetOption,
    Overrides,
    PenaltyOption,
    PrecisionOption,
    PrefixesOption,
    ProcessesOption,
    RecipeArgument,
    RunArgument,
    StrictOption,
    TagOption,
    answer,
    step_range,
)
from cluster.cli.plan import plan
from cluster.cli.recipes import init, recipes
from cluster.cli.serve import serve
from cluster.cli.standings import runs, status
from cluster.cli.sweep import sweep
from cluster.cli.texts import export, generate, import_weights
from cluster.cli.usage import Commands
from cluster.errors import (
    EXIT_FAILED,
    EXIT_PREEMPTED,
    EXIT_USAGE,
    ClusterError,
    HeadLostError,
    RecipeError,
)
from cluster.supervision.command_signals import expect_a_run, ignore_signals
from cluster.terminal import (
    Terminal,
    complain,
    full_message,
    hand_over,
    print_in_any_locale,
    show_tracebacks_visibly,
    tell,
)
from data_pipeline.errors import DataError
from model.errors import ModelError
from trainer.errors import TrainerError

app = typer.Typer(
    cls=Commands,
    name="transloom",
    help="Train Transformers for translation and as language models: one recipe, one curve.\n\n"
    "Begin with:  [bold]transloom demo[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoints_app, name="checkpoints")
app.add_typer(data_app, name="data")
app.add_typer(jobs_app, name="jobs", rich_help_panel="On a cluster")
app.add_typer(deploy_app, name="deploy", rich_help_panel="On a cluster")
app.command("compare")(compare)
app.command("init")(init)
app.command("plan")(plan)
app.command("recipes")(recipes)
app.command("serve", hidden=True)(serve)
app.command("generate")(generate)
app.command("export")(export)
app.command("import")(import_weights)
app.command("submit", rich_help_panel="On a cluster")(submit)
app.command("sweep")(sweep)
app.command("runs")(runs)
app.command("status")(status)
app.command("stop", rich_help_panel="On a cluster")(stop)
app.command("workers", rich_help_panel="On a cluster")(workers)


def main() -> None:
    """The console script: users' mistakes end in one paragraph and an exit code."""
    show_tracebacks_visibly()
    print_in_any_locale()
    try:
        app()
    except (ClusterError, DataError, ModelError, TrainerError) as error:
        complain(full_message(error))
        if isinstance(error, HeadLostError):
            os._exit(EXIT_FAILED)  # otherwise Ray would look for the head for another minute
        sys.exit(EXIT_USAGE if isinstance(error, RecipeError) else EXIT_FAILED)
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        complain(f"{error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(EXIT_FAILED)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        tell(version("transloom"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Options of transloom itself; what it does is in its commands."""


@app.command()
def fields(
    section: Annotated[
        str, typer.Argument(metavar="[SECTION]", help="Only the fields that begin so.")
    ] = "",
    task: Annotated[
        str, typer.Option(help="Of recipes of this task, such as causal_lm.")
    ] = "translation",
    search: Annotated[
        str, typer.Option(metavar="WORDS", help="Only those that speak of this.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Explain the fields of a recipe: default, what a change does, meaning.

    Examples:

      transloom fields trainer.schedule

      transloom fields --search "learning rate"
    """
    from cluster.commands.field_guide import field_rows, fields_table

    rows = field_rows(section, task, search)
    answer(rows, as_json, fields_table(rows))


@app.command()
def demo() -> None:
    """Learn French–English from a built-in phrase book: prepare, train, evaluate, translate.

    Needs no download and no account. Stop it with Ctrl-C and start it again: it goes on.
    """
    from cluster.commands.demo import run_demo

    outcome = run_demo(Terminal())
    ignore_signals()
    raise typer.Exit(0 if outcome == "finished" else EXIT_PREEMPTED)


@app.command()
def prepare(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a dataset made from other settings.")
    ] = False,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a recipe's corpora into a dataset: tokenizer, shards, manifest.

    Example:  transloom prepare multi30k-ende data.mirror=../multi30k
    """
    from cluster.commands.datasets import prepare_dataset
    from cluster.recipe import find_recipe, load_recipe

    loaded = load_recipe(find_recipe(recipe), overrides or ())
    summary = prepare_dataset(
        loaded, Terminal(stderr=True), overwrite=overwrite, processes=processes
    )
    answer(summary, as_json, summary["text"])


@app.command()
def train(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: Annotated[
        Path | None, typer.Option(help="The run's folder. Default: runs/ and a name.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster to train on: HOST:PORT or auto.")
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="One rank in this process, without Ray: to debug.")
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Write torch's profile of the steps A to B of each rank."),
    ] = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a run, or continue it: the same command does both.

    Examples:

      transloom train phrasebook trainer.max_steps=100

      transloom train multi30k-ende cluster.ranks=2 --address 10.0.0.1:6379

      transloom train phrasebook --profile 20:22
    """
    expect_a_run()
    first_and_last = step_range(profile) if profile else None
    from cluster.commands.train import train_run
    from trainer.step_range import StepRange

    result = train_run(
        recipe,
        overrides or [],
        run=run,
        address=address,
        inline=inline,
        strict=strict,
        console=Terminal(stderr=as_json),
        profile=StepRange(*first_and_last) if first_and_last else None,
    )
    ignore_signals()
    answer(result.to_json(), as_json, result.text())
    raise typer.Exit(0 if result.outcome == "finished" else EXIT_PREEMPTED)


@app.command()
def translate(
    run: RunArgument,
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="One sentence a line; - is standard input.")
    ] = "-",
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    n_best: Annotated[int, typer.Option(min=1, help="Translations of each sentence.")] = 1,
    prefixes: PrefixesOption = None,
    alignments: AlignmentsOption = False,
    tag: TagOption = None,
    precision: PrecisionOption = "fp32",
    processes: ProcessesOption = None,
    long_lines: LongLinesOption = "refuse",
    max_tokens: MaxTokensOption = None,
    as_json: JsonOption = False,
) -> None:
    """Translate sentences with a run's weights, by beam search.

    Text is UTF-8 whatever the locale, and a line ends with \\n alone. A line that is not UTF-8 or
    too long is named, and nothing is translated (exit code 1).

    Examples:

      echo "je suis étudiant" | transloom translate runs/phrasebook

      transloom translate runs/phrasebook sentences.txt --n-best 3 --json

      transloom translate runs/phrasebook sentences.txt --prefixes begun.txt --alignments

      transloom translate runs/many-languages sentences.txt --tag "<2de>"
    """
    if long_lines == "split" and (n_best > 1 or prefixes is not None or alignments):
        raise typer.BadParameter(
            "--long-lines split makes one translation of the best of each part: leave out "
            "--n-best, --prefixes and --alignments"
        )
    from cluster.commands.inference import load_translator
    from cluster.commands.translate import translated_lines

    translator = load_translator(run, checkpoint, beam_size, length_penalty, n_best, precision)
    for line in translated_lines(
        translator,
        file,
        prefixes=prefixes,
        tag=tag,
        n_best=n_best,
        alignments=alignments,
        processes=processes,
        as_json=as_json,
        long_lines=long_lines,
        max_tokens=max_tokens,
    ):
        hand_over(line)


@app.command()
def explain(
    run: RunArgument,
    sentence: Annotated[str, typer.Argument(metavar="SENTENCE", help="What to translate.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: explain.html in the run's folder.")
    ] = None,
    checkpoint: CheckpointOption = None,
    tag: TagOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a run translates a sentence, step by step, as one HTML page.

    All numbers on the way are in it. It opens without a network, in any browser.

    Examples:

      transloom explain runs/phrasebook "je suis étudiant"

      transloom explain runs/phrasebook "elle est là" --checkpoint 150 --output early.html
    """
    from cluster.commands.inference import load_translator, write_explanation

    translator = load_translator(run, checkpoint)
    summary = write_explanation(translator, sentence, tag, output or run / "explain.html")
    answer(summary, as_json, f"{sentence} → {summary['translation']}\n{summary['file']}")


@app.command()
def evaluate(
    run: RunArgument,
    test_set: Annotated[
        list[str] | None, typer.Option("--set", help="A test set's name. Default: all.")
    ] = None,
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    dataset: MovedDatasetOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on its recipe's test sets.

    Translations get BLEU and chrF with signatures, and are kept in the run's folder; runs of other
    tasks get the scores of their validation. Example:  transloom evaluate runs/phrasebook
    """
    from cluster.commands import inference
    from cluster.commands.inference import evaluate_sets, load_translator, scores_table

    if inference.task_of(run) != "translation":
        scores = inference.score_sets(run, test_set, checkpoint, dataset)
        answer(scores, as_json, inference.plain_scores_table(scores))
        return
    translator = load_translator(run, checkpoint, beam_size, length_penalty)
    console = Terminal(stderr=True)
    evaluations = evaluate_sets(translator, run, test_set, dataset, console, processes)
    answer([e.to_json() for e in evaluations], as_json, scores_table(evaluations))
