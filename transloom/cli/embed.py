"""Command `transloom embed`: compute the embeddings of sentences."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.terminal import Terminal, percentage_bars, print_result, warn
from foundation.untrusted_text import visible_in_json
from foundation.wording import counted
from transloom.cli.options import (
    CheckpointOption,
    InputOption,
    PrecisionOption,
    RunArgument,
    TextsArgument,
    require_one_input,
)

if TYPE_CHECKING:
    from transloom.inference.sentence_embedder import SentenceEmbedder


def embed(
    run: RunArgument,
    texts: TextsArgument = None,
    given: InputOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="File to which to write the vectors as a NumPy array, instead of printing JSON.",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
) -> None:
    """Compute sentence embeddings with a trained sentence encoder.

    Texts with the same meaning get similar vectors, even if their languages differ. The run must
    have been trained on these languages.

    All vectors have length 1, so np.load("en.npy") @ np.load("de.npy").T is the matrix of cosine
    similarities between the texts of two files.

    Examples:

      transloom embed runs/multi30k-embedding "A dog runs." "Ein Hund rennt."

      transloom embed runs/multi30k-embedding --input captions.en --out en.npy
    """
    from transloom.cli.load_translator import load_reader
    from transloom.inference.sentence_embedder import SentenceEmbedder
    from transloom.inference.text_input import read_texts

    require_one_input(texts, given)
    embedder = load_reader(SentenceEmbedder, run, checkpoint, precision)
    sentences = read_texts(texts or [], given)
    if out is not None:
        write_vectors(embedder, sentences, out)
        return
    for line in vector_lines(embedder, sentences):
        print_result(line)


def vector_lines(embedder: "SentenceEmbedder", texts: Sequence[str]) -> Iterator[str]:
    """Yield a line of JSON for each text, with the text and its vector."""
    cut = 0
    remaining = iter(texts)
    for part in embedder.embed_parts(texts):
        cut += len(part.cut)
        for vector in part.vectors:
            # Enough digits to distinguish neighbouring float32 values.
            numbers = ", ".join(map(str, vector))
            shown = visible_in_json(json.dumps(next(remaining), ensure_ascii=False))
            yield f'{{"text": {shown}, "vector": [{numbers}]}}'
    _report_cut(cut, embedder)


def write_vectors(embedder: "SentenceEmbedder", texts: Sequence[str], out: Path) -> None:
    """Write the vectors of all texts to a file as a float32 array of shape [texts, width].

    The file appears only when it is complete.

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
            for part in embedder.embed_parts(texts):
                file.write(part.vectors.astype("<f4").tobytes())
                cut += len(part.cut)
                progress.advance(bar, len(part.vectors))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    _report_cut(cut, embedder)


def _report_cut(cut: int, embedder: "SentenceEmbedder") -> None:
    if cut:
        warn(
            f"The model read only the first {embedder.longest} tokens, including BOS and EOS, of "
            f"{counted(cut, 'text')}, because it has no more positions"
        )
