"""Commands for encoders: `fill`."""

from typing import Annotated

import typer

from cluster.cli.options import CheckpointOption, JsonOption, PrecisionOption, RunArgument
from cluster.terminal import hand_over


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
    from cluster.commands.fill import filled_lines, load_filler, texts_of

    filler = load_filler(run, checkpoint, precision, candidates)
    for line in filled_lines(filler, texts_of(texts or []), as_json=as_json):
        hand_over(line)
