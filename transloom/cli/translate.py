"""`transloom translate`: translate lines of sentences."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import Terminal, print_result
from transloom.cli.completion import run_folders
from transloom.cli.options import (
    AlignmentsOption,
    BeamOption,
    CheckpointOption,
    ComputeTypeOption,
    EngineOption,
    JsonOption,
    LongLinesOption,
    MaxTokensOption,
    PenaltyOption,
    PrecisionOption,
    PrefixesOption,
    ProcessesOption,
    TagOption,
)
from transloom.inference.decoding_options import DecodingOptions
from transloom.inference.engine_names import Engine


def translate(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN... [FILE|-]",
            help="Runs' folders, each RUN or RUN@STEP, then a file of one sentence a line; - is "
            "standard input.",
            autocompletion=run_folders,
        ),
    ],
    given: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="The file, in place of the last argument."),
    ] = None,
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
    on_cluster: Annotated[
        bool,
        typer.Option(
            "--on-cluster", help="Let actors on a Ray cluster translate FILE to --output."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="OUT", help="With --on-cluster: the file to write.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="The cluster: HOST:PORT or auto. Default: Ray is started here."),
    ] = None,
    actors: Annotated[
        int | None, typer.Option(min=1, help="Default: as many as the cluster has room for.")
    ] = None,
    cpus_per_actor: Annotated[float, typer.Option(min=0.1, help="Each is a process.")] = 1.0,
    gpus_per_actor: Annotated[float, typer.Option(min=0.0, help="With any, on a GPU.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Translate sentences with a run's weights, by beam search.

    Several runs translate together, as papers do with seeds: each token has the mean of their
    probabilities. They need one target tokenizer. A run is a folder, a file of sentences is none,
    so arguments are told apart by that, and --input says it.

    --on-cluster deals a large file to actors. The output is that of this command without it, and
    appears whole; whatever is killed, the same command goes on where it was.

    Text is UTF-8 whatever the locale, and a line ends with \\n alone. A line that is not UTF-8 or
    too long is named, and nothing is translated (exit code 1).

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
            "--long-lines split makes one translation of the best of each part: leave out "
            "--n-best, --prefixes and --alignments"
        )
    names, file = _runs_and_file(runs, given)
    if alignments and len(names) > 1:
        raise typer.BadParameter(
            "--alignments are what one model looks at, and several runs are named: name one run"
        )
    if on_cluster != (output is not None):
        raise typer.BadParameter(
            "--on-cluster and --output OUT belong together; without a cluster, redirect the output"
        )
    if on_cluster and engine is not Engine.TORCH:
        raise typer.BadParameter(f"--on-cluster translates with torch, and --engine is {engine}")
    if on_cluster and (prefixes is not None or processes is not None):
        raise typer.BadParameter(
            "--on-cluster takes no --prefixes, and --actors in place of --processes"
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
    """The runs among the arguments, and the file: the last one, if it is no folder."""
    *others, last = words
    file = given or "-"
    if given is None and others and not _is_folder(last):
        words, file = others, last
    for word in words[1:]:  # what the first one is, is told where it is opened
        if not _is_folder(word):
            raise typer.BadParameter(
                f"{word} is no folder of a run: name runs first, then one file, as in "
                "`transloom translate runs/seed-1 runs/seed-2 sentences.txt`, or with --input FILE"
            )
    return words, file


def _is_folder(word: str) -> bool:
    path, at, _ = word.rpartition("@")
    return Path(word).is_dir() or (bool(at) and Path(path).is_dir() and not Path(word).exists())
