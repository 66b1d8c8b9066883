"""`transloom fill`: texts with [MASK] in, likely pieces out."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from foundation.strangers_text import visible_in_json
from transloom.commands.text_readers import load_reader
from transloom.inference.mask_filler import Filled, MaskFiller
from transloom.inference.trained_network import Precision


def load_filler(
    run: Path, checkpoint: str | None, precision: Precision, candidates: int | None
) -> MaskFiller:
    """Load a run's filler, and name newer checkpoints that were passed over.

    Args:
        candidates: how many are named for a mask; None: as many as the recipe says.
    """
    filler = load_reader(MaskFiller, run, checkpoint, precision)
    if candidates is not None:
        filler.config = filler.config.model_copy(update={"candidates": candidates})
    return filler


def filled_lines(filler: MaskFiller, texts: Sequence[str], *, as_json: bool) -> Iterator[str]:
    """What is printed for each text: it with its likeliest pieces, and a line for each mask."""
    for found in filler.fill(texts):
        if as_json:
            yield visible_in_json(json.dumps(asdict(found), ensure_ascii=False))
        else:
            yield from _told(found)


def _told(found: Filled) -> Iterator[str]:
    yield found.filled
    for number, candidates in enumerate(found.masks, start=1):
        named = (f"{each.text or each.piece} {each.probability:.1%}" for each in candidates)
        yield f"    [MASK] {number}: {', '.join(named)}"
