"""`transloom translate`, `explain` and `evaluate`: what a trained run can do."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import (
    AlignmentsOption,
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    JsonOption,
    LongLinesOption,
    MaxTokensOption,
    MovedDatasetOption,
    PenaltyOption,
    PrecisionOption,
    PrefixesOption,
    ProcessesOption,
    RunArgument,
    TagOption,
    answer,
)
from cluster.terminal import Terminal, hand_over
from trainer.inference.engine_names import Engine


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
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
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

      transloom translate runs/phrasebook sentences.txt --engine ctranslate2 --compute-type int8
    """
    if long_lines == "split" and (n_best > 1 or prefixes is not None or alignments):
        raise typer.BadParameter(
            "--long-lines split makes one translation of the best of each part: leave out "
            "--n-best, --prefixes and --alignments"
        )
    from cluster.commands.inference import load_translator
    from cluster.commands.translate import translated_lines

    translator = load_translator(
        run, checkpoint, beam_size, length_penalty, n_best, precision, engine, compute_type
    )
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


def evaluate(
    run: RunArgument,
    test_set: Annotated[
        list[str] | None, typer.Option("--set", help="A test set's name. Default: all.")
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

    Translations get BLEU and chrF with signatures, and are kept in the run's folder; runs of other
    tasks get the scores of their validation. Example:  transloom evaluate runs/phrasebook
    """
    from cluster.commands import inference
    from cluster.commands.inference import evaluate_sets, load_translator, scores_table

    if inference.task_of(run) != "translation":
        scores = inference.score_sets(run, test_set, checkpoint, dataset)
        answer(scores, as_json, inference.plain_scores_table(scores))
        return
    translator = load_translator(
        run, checkpoint, beam_size, length_penalty, engine=engine, compute_type=compute_type
    )
    console = Terminal(stderr=True)
    evaluations = evaluate_sets(translator, run, test_set, dataset, console, processes)
    answer([e.to_json() for e in evaluations], as_json, scores_table(evaluations))
