"""Command `transloom evaluate`: score a run on its recipe's test sets."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.terminal import Terminal, percentage_bars, warn
from model.config.transformer import search_label
from run_store.errors import RunMismatchError
from transloom.cli.options import (
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    JsonOption,
    MovedDatasetOption,
    PenaltyOption,
    ProcessesOption,
    answer,
    run_names_argument,
)
from transloom.cli.run_urls import named_run, writable
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine
from transloom.observe.terminal.tables import AnswerTable, Column

if TYPE_CHECKING:
    from data_pipeline.config.data import DataConfig
    from transloom.inference.evaluation import Evaluation
    from transloom.inference.translator import Translator


def evaluate(
    runs: Annotated[
        list[str],
        run_names_argument(
            metavar="RUN...",
            help="Folders or URLs of the runs; RUN@STEP names a checkpoint. Several runs "
            "translate as an ensemble.",
        ),
    ],
    test_set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Name of a test set; repeat the option for several sets. Default: all test sets.",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    dataset: MovedDatasetOption = None,
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
    processes: ProcessesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on its recipe's test sets.

    For a translation run, the command computes BLEU and chrF with their signatures, and stores the
    translations in the run's folder. For a run of another task, it computes the scores that
    validation computes during training. Several runs translate the first run's test sets as an
    ensemble, as in `transloom translate`; the first run's folder stores these translations.

    Examples:

      transloom evaluate runs/phrasebook

      transloom evaluate runs/seed-1 runs/seed-2 --set validation
    """
    from transloom.cli.load_translator import load_together, task_of

    run, named_checkpoint = named_run(runs[0])
    if task_of(run) != "translation":
        if len(runs) > 1:
            raise typer.BadParameter(
                f"{run} does not translate, so it cannot join an ensemble: name only one run"
            )
        scores = score_sets(run, test_set, checkpoint or named_checkpoint, dataset)
        answer(scores, as_json, plain_scores_table(scores))
        return
    options = DecodingOptions(beam_size, length_penalty, engine=engine, compute_type=compute_type)
    translator = load_together(runs, checkpoint, options)
    console = Terminal(stderr=True)
    evaluations = evaluate_sets(translator, run, test_set, dataset, console, processes)
    answer([asdict(e) for e in evaluations], as_json, scores_table(evaluations))


def evaluate_sets(
    translator: "Translator",
    run: Path,
    names: list[str] | None,
    dataset: str | None,
    console: Terminal,
    processes: int | None = None,
) -> "list[Evaluation]":
    """Score a translation run on the named test sets, or on all test sets if `names` is empty."""
    from run_store.folder import RunFolder
    from transloom.cli.load_translator import trained_recipe
    from transloom.inference.evaluation import evaluate

    data = trained_recipe(translator.checkpoint, dataset).data
    evaluations = []
    with percentage_bars(console) as progress:

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        for name in _test_sets(data, run, names):
            task = progress.add_task(name, total=None)
            with writable(RunFolder(run)) as written:
                folder = written.translations
                evaluations.append(evaluate(translator, data, name, folder, report, processes))
    return evaluations


def _test_sets(data: "DataConfig", run: Path, names: list[str] | None) -> list[str]:
    """Return the names of the test sets to score.

    The validation set is included only if `names` has it.
    """
    known = list(data.tests)
    unknown = [name for name in names or [] if name not in (*known, "validation")]
    if unknown or not (names or known):
        missing = f"test set {', '.join(unknown)}" if unknown else "test sets"
        raise RunMismatchError(
            f"{run} has no {missing}: its recipe has {', '.join(known) or 'none'} in data.tests. "
            "Name a set of data.tests, or score the validation set with --set validation"
        )
    return names or known


def score_sets(
    run: Path, names: list[str] | None, checkpoint: str | None, dataset: str | None
) -> dict[str, dict[str, float | None]]:
    """Score a run of any task on its test sets.

    Returns:
        The scores by test set and name; a score that is not finite is None.
    """
    from transloom.cli.load_translator import trained_recipe
    from transloom.inference.evaluation import score_heldout
    from transloom.inference.trained_network import load_network

    found = load_network(run, checkpoint, "cpu", "fp32")
    for reason in found.passed_over:
        warn(f"{reason}; using {found.checkpoint.path}")
    data = trained_recipe(found.checkpoint, dataset).data
    return {
        name: {score: s.value for score, s in score_heldout(found, data, name).items()}
        for name in _test_sets(data, run, names)
    }


def plain_scores_table(scores: dict[str, dict[str, float | None]]) -> AnswerTable:
    table = AnswerTable("test set", "score", "value")
    for name, values in scores.items():
        for score, value in values.items():
            table.add(name, score, "not finite" if value is None else f"{value:.4f}")
    return table


def scores_table(evaluations: "list[Evaluation]") -> AnswerTable:
    from transloom.inference.evaluation import MOSES_BLEU

    table = AnswerTable(
        "test set",
        "metric",
        "score",
        *(Column(name, copied=True) for name in ("decoding", "signature")),
    )
    for evaluation in evaluations:
        decoding = search_label(evaluation.beam_size, evaluation.length_penalty)
        for metric, score in (
            ("BLEU", evaluation.bleu),
            ("chrF", evaluation.chrf),
            (MOSES_BLEU, evaluation.bleu_literature),
        ):
            table.add(evaluation.name, metric, f"{score.score:.2f}", decoding, score.signature)
        table.add(evaluation.name, "weights", "", "", evaluation.checkpoint)
        table.add(evaluation.name, "hypotheses", "", "", evaluation.hypotheses)
    return table
