"""Commands for encoders: `fill`, `embed`, `classify`."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.terminal import hand_over
from transloom.cli.options import CheckpointOption, JsonOption, PrecisionOption, RunArgument


def embed(
    run: RunArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts. Default: lines of --input or of stdin."),
    ] = None,
    given: Annotated[
        str | None, typer.Option("--input", metavar="FILE", help="A file of one text a line.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Write an array for numpy in place of JSON."),
    ] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
) -> None:
    """Turn sentences into vectors with a run of task sentence_embedding.

    Texts that mean the same have near vectors, in each language trained on.

    All have length 1, so np.load("en.npy") @ np.load("de.npy").T has the
    cosines of all pairs of two files.

    Examples:

      transloom embed runs/multi30k-embedding "A dog runs." "Ein Hund rennt."

      transloom embed runs/multi30k-embedding --input captions.en --out en.npy
    """
    from transloom.commands.embed import vector_lines, write_vectors
    from transloom.commands.text_readers import load_reader
    from transloom.inference.given_text import given_texts
    from transloom.inference.sentence_embedder import SentenceEmbedder

    if given is not None and texts:
        raise typer.BadParameter("name texts or --input, not both")
    embedder = load_reader(SentenceEmbedder, run, checkpoint, precision)
    sentences = given_texts(texts or [], given)
    if out is not None:
        write_vectors(embedder, sentences, out)
        return
    for line in vector_lines(embedder, sentences):
        hand_over(line)


def fill(
    run: RunArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts with [MASK]. Default: lines of stdin."),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Pieces to name for a mask. Default: the recipe's.")
    ] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Fill in hidden words with a masked model: each [MASK] is one piece.

    Several masks of a text are told at once, each without knowing what the others become.

    A run of pairs (task: tlm) takes the source, the target behind |||, or both with ||| between.

    Examples:

      transloom fill runs/multi30k-masked "A man is [MASK] a bike."

      transloom fill runs/multi30k-masked "Ein [MASK] spielt [MASK]." --candidates 10 --json

      transloom fill runs/multi30k-tlm "A [MASK] runs. ||| Ein Hund läuft."
    """
    from transloom.commands.fill import filled_lines, load_filler
    from transloom.inference.given_text import given_texts

    filler = load_filler(run, checkpoint, precision, candidates)
    for line in filled_lines(filler, given_texts(texts or []), as_json=as_json):
        hand_over(line)


def classify(
    run: RunArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts. Default: lines of stdin."),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option("--input", metavar="FILE", help="A file of texts, one a line; - is stdin."),
    ] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Label texts, or each of their words, as the run has learned it.

    A run of text_classification gives a line for each text: its label. A run of
    token_classification gives a line for each word, the word and its label after a tab, and a
    blank line after each text: the form of CoNLL, which such a run is trained on. Words are what
    stands between spaces.

    With --json each text has a line: of texts {"text", "label", "probabilities", "tokens",
    "read"}, of words {"text", "words": [{"word", "label", "probability"}, …]}.

    Examples:

      transloom classify runs/multi30k-language "Ein Mann fährt Rad." "Un homme fait du vélo."

      transloom classify runs/multi30k-language --input captions.txt --json > labels.jsonl

      transloom classify runs/multi30k-case "ein mann hält eine gitarre"
    """
    if texts and given is not None:
        raise typer.BadParameter(f"texts are given, and --input {given}: leave out one of the two")
    from transloom.commands.classify import labelled_lines
    from transloom.commands.text_readers import load_reader
    from transloom.inference.given_text import given_texts
    from transloom.inference.labeller import Labeller

    labeller = load_reader(Labeller, run, checkpoint, precision)
    for line in labelled_lines(labeller, given_texts(texts or [], given), as_json=as_json):
        hand_over(line)
