"""`transloom embed`: texts in, vectors out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.terminal import Terminal, percentage_bars, print_result, warn
from foundation.untrusted_text import visible_in_json
from foundation.wording import counted
from transloom.cli.options import CheckpointOption, PrecisionOption, RunArgument

if TYPE_CHECKING:
    from transloom.inference.sentence_embedder import Embedded, SentenceEmbedder


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
    from transloom.cli.text_readers import load_reader
    from transloom.inference.sentence_embedder import SentenceEmbedder
    from transloom.inference.text_input import read_texts

    if given is not None and texts:
        raise typer.BadParameter("name texts or --input, not both")
    embedder = load_reader(SentenceEmbedder, run, checkpoint, precision)
    sentences = read_texts(texts or [], given)
    if out is not None:
        write_vectors(embedder, sentences, out)
        return
    for line in vector_lines(embedder, sentences):
        print_result(line)


def vector_lines(embedder: "SentenceEmbedder", texts: Sequence[str]) -> Iterator[str]:
    """A line of JSON for each text: it and its vector."""
    cut = 0
    for start, part in _parts(embedder, texts):
        cut += len(part.cut)
        some = texts[start : start + len(part.vectors)]
        for text, vector in zip(some, part.vectors, strict=True):
            # As many digits as tell a float32 from its neighbours.
            numbers = ", ".join(map(str, vector))
            shown = visible_in_json(json.dumps(text, ensure_ascii=False))
            yield f'{{"text": {shown}, "vector": [{numbers}]}}'
    _tell_of(cut, embedder)


def write_vectors(embedder: "SentenceEmbedder", texts: Sequence[str], out: Path) -> None:
    """Write all vectors as an array, float32 [texts, width], once they are complete.

    Raises:
        OSError: the file cannot be written.
    """
    import numpy as np

    unfinished = out.with_name(out.name + ".unfinished")
    shape, cut = (len(texts), embedder.width), 0
    try:
        with unfinished.open("wb") as file, percentage_bars(Terminal(stderr=True)) as progress:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            bar = progress.add_task("embed", total=len(texts))
            for _, part in _parts(embedder, texts):
                file.write(part.vectors.astype("<f4").tobytes())
                cut += len(part.cut)
                progress.advance(bar, len(part.vectors))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    _tell_of(cut, embedder)


def _parts(embedder: "SentenceEmbedder", texts: Sequence[str]) -> "Iterator[tuple[int, Embedded]]":
    """The vectors of some texts after another, and the number of the first of these."""
    from transloom.inference.sentence_embedder import TEXTS_OF_A_PART

    for number, part in enumerate(embedder.embed_parts(texts)):
        yield number * TEXTS_OF_A_PART, part


def _tell_of(cut: int, embedder: "SentenceEmbedder") -> None:
    if cut:
        warn(
            f"{counted(cut, 'text')} of more than {embedder.longest} tokens, BOS and EOS "
            "included: only the beginning was read, as the network has learned no more positions"
        )
