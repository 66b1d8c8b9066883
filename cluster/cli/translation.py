"""`transloom translate`, `explain` and `evaluate`: what a trained run can do."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import (
    AlignmentsOption,
    BeamOption,
    CheckpointOption,
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

    All numbers on the way are in it. It opens without a network, in any browser. A model of up to
    5 million weights lies in it, too: type another sentence there.

    Examples:

      transloom explain runs/phrasebook "je suis étudiant"

      transloom explain runs/phrasebook "elle est là" --checkpoint 150 --output early.html
    """
    from cluster.commands.inference import load_translator, write_explanation

    translator = load_translator(run, checkpoint)
    summary = write_explanation(translator, sentence, tag, output or run / "explain.html")
    reason = summary["not_live"]
    note = f"the page shows this sentence alone: {reason}\n" if reason else ""
    answer(summary, as_json, f"{sentence} → {summary['translation']}\n{note}{summary['file']}")


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
