"""`transloom embed`: texts in, vectors out.

texts ─▶ parts of a few thousand ─▶ vectors ─▶ a line of JSON each, or one file of numpy's
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cluster.terminal import Terminal, percentages, warn
from foundation.strangers_text import visible_in_json
from foundation.wording import counted
from transloom.inference.sentence_embedder import TEXTS_OF_A_PART, Embedded, SentenceEmbedder


def vector_lines(embedder: SentenceEmbedder, texts: Sequence[str]) -> Iterator[str]:
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


def write_vectors(embedder: SentenceEmbedder, texts: Sequence[str], out: Path) -> None:
    """Write all vectors as an array, float32 [texts, width], once they are complete.

    Raises:
        OSError: the file cannot be written.
    """
    unfinished = out.with_name(out.name + ".unfinished")
    shape, cut = (len(texts), embedder.width), 0
    try:
        with unfinished.open("wb") as file, percentages(Terminal(stderr=True)) as progress:
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


def _parts(embedder: SentenceEmbedder, texts: Sequence[str]) -> Iterator[tuple[int, Embedded]]:
    """The vectors of some texts after another, and the number of the first of these."""
    for number, part in enumerate(embedder.embed_parts(texts)):
        yield number * TEXTS_OF_A_PART, part


def _tell_of(cut: int, embedder: SentenceEmbedder) -> None:
    if cut:
        warn(
            f"{counted(cut, 'text')} of more than {embedder.longest} tokens, BOS and EOS "
            "included: only the beginning was read, as the network has learned no more positions"
        )
