"""Command `transloom translate`: translate lines of text."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from foundation.terminal import Terminal, print_result
from transloom.cli.options import (
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    JsonOption,
    MaxTokensOption,
    PenaltyOption,
    PrecisionOption,
    ProcessesOption,
    TagOption,
    run_names_argument,
)
from transloom.cli.run_urls import named_run
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine


def translate(
    runs: Annotated[
        list[str],
        run_names_argument(
            metavar="RUN... [FILE|-]",
            help="Folders or URLs of the runs, then a file with one sentence per line. RUN@STEP "
            "names a checkpoint. The default for the file is -, standard input.",
        ),
    ],
    given: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="File of sentences to translate, instead of the argument FILE.",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    beam_size: BeamOption = None,
    length_penalty: PenaltyOption = None,
    n_best: Annotated[
        int, typer.Option(min=1, help="Number of translations to print for each sentence.")
    ] = 1,
    prefixes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File with the required beginning of each translation, one per line. Each "
            "beginning should end with a whole word. An empty line requires no beginning.",
        ),
    ] = None,
    alignments: Annotated[
        bool,
        typer.Option(
            "--alignments",
            help="Append a tab and the word alignment to each translation, such as 0-0 2-1. Each "
            "pair has the numbers of a source word and a translated word, counted from 0, "
            "and is computed from attention. SentencePiece's ▁ marks the beginning of a word.",
        ),
    ] = False,
    tag: TagOption = None,
    precision: PrecisionOption = "fp32",
    engine: EngineOption = Engine.TORCH,
    compute_type: ComputeTypeOption = None,
    processes: ProcessesOption = None,
    long_lines: Annotated[
        Literal["refuse", "split"],
        typer.Option(
            help="Treatment of lines with more tokens than --max-tokens. refuse: list these lines "
            "and translate nothing. split: cut each line at sentence ends, or else at "
            "spaces, translate the parts separately, and join their translations with "
            "spaces. No part has the others as context. Line N of the output is always the "
            "translation of line N of the input.",
        ),
    ] = "refuse",
    max_tokens: MaxTokensOption = None,
    on_cluster: Annotated[
        bool,
        typer.Option(
            "--on-cluster",
            help="Translate FILE with actors on a Ray cluster, and write the result to --output.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT", help="With --on-cluster: file to which to write the translations."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="With --on-cluster: address of a running Ray cluster, HOST:PORT, or auto to "
            "detect it. Default: start Ray on this machine."
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="With --on-cluster: number of actors. Default: the largest number for which the "
            "cluster has capacity.",
        ),
    ] = None,
    cpus_per_actor: Annotated[
        float, typer.Option(min=0.1, help="With --on-cluster: number of CPUs for each actor.")
    ] = 1.0,
    gpus_per_actor: Annotated[
        float, typer.Option(min=0.0, help="With --on-cluster: number of GPUs for each actor.")
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Translate sentences with a run's weights, by beam search.

    Several runs translate as an ensemble, which averages their probabilities of each token. The
    runs need the same target tokenizer. Arguments that are folders are runs. The last argument may
    be a file of sentences; --input can name this file instead.

    --on-cluster distributes a large file over Ray actors, and gives the same output as without
    --on-cluster. The output file appears only when it is complete. If a process is killed, run the
    same command again to continue.

    Text is UTF-8, whatever the locale is, and only \\n ends a line. If a line is not UTF-8 or is
    too long, the command names the line, translates nothing, and exits with code 1.

    Examples:

      echo "je suis étudiant" | transloom translate runs/phrasebook

      transloom translate runs/phrasebook sentences.txt --n-best 3 --json

      transloom translate runs/phrasebook sentences.txt --prefixes begun.txt --alignments

      transloom translate runs/many-languages sentences.txt --tag "<2de>"

      transloom translate runs/seed-1 runs/seed-2 runs/seed-3@8000 sentences.txt

      transloom translate runs/phrasebook sentences.txt --engine ctranslate2 --compute-type int8

      transloom translate runs/de-en mono.de --output mono.en --on-cluster --address auto
    """
    if long_lines == "split" and (n_best > 1 or prefixes is not None or alignments):
        raise typer.BadParameter(
            "--long-lines split joins the best translations of a line's parts, so it has no "
            "n-best lists, prefixes or alignments: leave out --n-best, --prefixes and "
            "--alignments"
        )
    names, file = _runs_and_file(runs, given)
    if alignments and len(names) > 1:
        raise typer.BadParameter(
            "--alignments needs the attention of a single model, but several runs are named: "
            "name one run"
        )
    if on_cluster != (output is not None):
        raise typer.BadParameter(
            "only one of --on-cluster and --output is given: give both, or redirect the "
            "output to translate without a cluster"
        )
    if on_cluster and engine is not Engine.TORCH:
        raise typer.BadParameter(
            f"--on-cluster needs --engine torch, but --engine is {engine}: leave out --engine"
        )
    if on_cluster and (prefixes is not None or processes is not None):
        raise typer.BadParameter(
            "--on-cluster supports neither --prefixes nor --processes: leave them out, and "
            "set the number of actors with --actors"
        )
    from transloom.cli.load_translator import load_together
    from transloom.inference.translate import LineOptions, translated_lines

    options = DecodingOptions(beam_size, length_penalty, n_best, precision, engine, compute_type)
    translator = load_together(names, checkpoint, options)
    wanted = LineOptions(tag, n_best, alignments, as_json, long_lines, max_tokens)
    if output is not None:
        from transloom.inference.distributed.actors import ActorResources
        from transloom.inference.distributed.cluster_translation import translate_on_cluster

        resources = ActorResources(actors, cpus_per_actor, gpus_per_actor)
        console = Terminal(stderr=True)
        translate_on_cluster(translator, file, output, wanted, resources, address, console)
        return
    for line in translated_lines(translator, file, wanted, prefixes=prefixes, processes=processes):
        print_result(line)


def _runs_and_file(words: list[str], given: str | None) -> tuple[list[str], str]:
    """Return the runs and the file; the last argument is the file if it is not a folder."""
    *others, last = words
    file = given or "-"
    if given is None and others and not named_run(last)[0].is_dir():
        words, file = others, last
    for word in words[1:]:  # loading the first run raises a better error about it
        if not named_run(word)[0].is_dir():
            raise typer.BadParameter(
                f"{word} is not the folder of a run: name runs first, then one file, as in "
                "`transloom translate runs/seed-1 runs/seed-2 sentences.txt`, or name the file "
                "with --input"
            )
    return words, file
