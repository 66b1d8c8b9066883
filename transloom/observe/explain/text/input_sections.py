"""Build the sections about the input: pieces, then their vectors with positions."""

from transloom.observe.explain import figures
from transloom.observe.explain.parts import Part, Section, Text, Tokens
from transloom.observe.explain.sections import ids_table
from transloom.observe.explain.text.text_explanation import ContinuedText, FilledText

GROUP = "Input"


def input_sections(explained: FilledText | ContinuedText, key: str) -> list[Section]:
    """Return the sections about pieces and ids, and about the input of the first layer.

    Args:
        key: prefix of the keys of the stack's boxes in the model's figure.
    """
    return [_pieces(explained, key), _vectors(explained, key)]


def _pieces(explained: FilledText | ContinuedText, key: str) -> Section:
    pieces = explained.pieces
    if isinstance(explained, FilledText):
        ends = (
            "The first and the last piece tell where the text begins and ends. What stands for "
            "[MASK] is a piece of its own, which no text contains."
        )
    else:
        ends = (
            f"The first piece only says “begin”; the text has the next {explained.given - 1}, and "
            "all others are what the model added."
        )
    return Section(
        group=GROUP,
        name="Pieces and ids",
        title="Pieces and their ids",
        lead=(
            "The model knows no letters, only a list of pieces: words, or parts of rarer words. "
            "A tokenizer cuts the text into them, and each has a number, its id."
        ),
        parts=[
            Tokens("Pieces", pieces.texts),
            ids_table(pieces),
            Text(f"▁ stands for a space, ␊ for a line end. {ends}"),
        ],
        shows={"": [f"{key}.ids"]},
    )


def _vectors(explained: FilledText | ContinuedText, key: str) -> Section:
    embedding, pieces = explained.stack.embedding, explained.pieces.texts
    parts: list[Part] = [figures.vectors(_taken(explained), embedding.tokens_btm[0], pieces)]
    if embedding.positions_tm is None:
        parts.append(
            Text(
                "Nothing is added for the order of the pieces: in every layer, queries and keys "
                "are turned by their position (rotary positions)."
            )
        )
    else:
        places = [f"position {position}" for position in explained.positions]
        parts += [
            Text(f"Attention alone does not see the order of the pieces. {_order(explained)}"),
            figures.vectors("+ positions", embedding.positions_tm, places),
        ]
    if embedding.segments_btm is not None:
        parts += [
            Text(f"One more vector tells which side of a pair a piece is of. {_sides(explained)}"),
            figures.vectors("+ segments", embedding.segments_btm[0], pieces),
        ]
    if embedding.positions_tm is not None:
        parts.append(figures.vectors("= sum", embedding.sum_btm[0], pieces))
    if embedding.normed_btm is not None:
        parts.append(figures.vectors("layer normalisation", embedding.normed_btm[0], pieces))
    boxes = ("embedding", "positions", "segments", "embedding_norm")
    known = {box.key for box in explained.blueprint.boxes()}
    return Section(
        group=GROUP,
        name="Vectors and positions",
        title="Each id picks a row of numbers",
        lead=(
            f"A learned matrix has a row of {explained.form.width} numbers for each piece. The "
            f"rows of our {len(pieces)} pieces are taken out."
        ),
        parts=parts,
        shows={"": [f"{key}.{box}" for box in boxes if f"{key}.{box}" in known]},
    )


def _has_waves(explained: FilledText | ContinuedText) -> bool:
    """Return whether the positions are sines and cosines."""
    return getattr(explained.config, "positions", "learned") == "sinusoidal"


def _taken(explained: FilledText | ContinuedText) -> str:
    width = explained.form.width
    return f"embedding × √{width}" if _has_waves(explained) else "embedding"


def _order(explained: FilledText | ContinuedText) -> str:
    if _has_waves(explained):
        return (
            "So a pattern of sines and cosines that tells the position is added: fast waves at the "
            "left, slow ones at the right."
        )
    return "So a learned row of numbers is added that belongs to the position."


def _sides(explained: FilledText | ContinuedText) -> str:
    if isinstance(explained, FilledText) and explained.is_pair:
        return "The sides of this pair have a vector each; positions begin anew with the second."
    return "A text by itself has one side, so all rows get the same."
