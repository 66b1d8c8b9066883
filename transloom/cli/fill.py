"""Command `transloom fill`: predict the masked pieces of texts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from transloom.cli.options import (
    CheckpointOption,
    JsonOption,
    PrecisionOption,
    RunArgument,
    answer_each,
)

if TYPE_CHECKING:
    from transloom.inference.engine_names import Precision
    from transloom.inference.mask_filler import Filled, MaskFiller


def fill(
    run: RunArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="Texts that contain [MASK]. Default: the lines of standard input.",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of candidates to print for each mask. Default: decoding.candidates of "
            "the run's recipe.",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    precision: PrecisionOption = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Predict the masked words of texts with a masked language model.

    Each [MASK] is one subword piece. The model predicts several masks of a text in one pass,
    independently of one another.

    If the run was trained on sentence pairs, the text is a pair: SOURCE ||| TARGET. It may also be
    only SOURCE, or only ||| TARGET.

    Examples:

      transloom fill runs/multi30k-masked "A man is [MASK] a bike."

      transloom fill runs/multi30k-masked "Ein [MASK] spielt [MASK]." --candidates 10 --json

      transloom fill runs/multi30k-tlm "A [MASK] runs. ||| Ein Hund läuft."
    """
    from transloom.inference.text_input import read_texts

    filler = load_filler(run, checkpoint, precision, candidates)
    answer_each(filler.fill(read_texts(texts or [])), as_json, _candidates_text)


def load_filler(
    run: Path, checkpoint: str | None, precision: "Precision", candidates: int | None
) -> "MaskFiller":
    """Load a run's mask filler, and warn about newer checkpoints that were skipped.

    Args:
        candidates: number of candidates for each mask; None for the number in the recipe.
    """
    from transloom.cli.load_translator import load_reader
    from transloom.inference.mask_filler import MaskFiller

    filler = load_reader(MaskFiller, run, checkpoint, precision)
    if candidates is not None:
        filler.config = filler.config.model_copy(update={"candidates": candidates})
    return filler


def _candidates_text(found: "Filled") -> str:
    """Return the filled text, and a line with the candidates for each mask."""
    lines = [found.filled]
    for number, candidates in enumerate(found.masks, start=1):
        named = (f"{each.text or each.piece} {each.probability:.1%}" for each in candidates)
        lines.append(f"    [MASK] {number}: {', '.join(named)}")
    return "\n".join(lines)
