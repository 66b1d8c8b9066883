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
            "The first and the last piece mark the beginning and the end of the text. [MASK] is "
            "replaced by a special piece, which no text contains."
        )
    else:
        ends = (
            "The first piece only marks the beginning. The next "
            f"{explained.given - 1} are the given text, and the model has added all others."
        )
    return Section(
        group=GROUP,
        name="Pieces and ids",
        title="Pieces and their ids",
        lead=(
            "The model knows no letters, only a list of pieces: words, or parts of rarer words. "
            "A tokenizer splits the text into pieces. Each piece has a number, its id."
        ),
        parts=[
            Tokens("Pieces", pieces.texts),
            ids_table(pieces),
            Text(f"▁ represents a space, and ␊ a line end. {ends}"),
        ],
        shows={"": [f"{key}.ids"]},
    )


def _vectors(explained: FilledText | ContinuedText, key: str) -> Section:
    embedding, pieces = explained.stack.embedding, explained.pieces.texts
    parts: list[Part] = [figures.vectors(_taken(explained), embedding.tokens_btm[0], pieces)]
    if embedding.positions_tm is None:
        parts.append(
            Text(
                "No positions are added to the embedding. Instead, every layer rotates queries and "
                "keys by their position (rotary positions)."
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
            Text(
                f"A third vector shows to which side of a pair a piece belongs. {_sides(explained)}"
            ),
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
            f"rows of our {len(pieces)} pieces are selected."
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
            "Therefore a pattern of sines and cosines is added that depends on the position: fast "
            "waves on the left, slow waves on the right."
        )
    return "Therefore a learned row of numbers for the position is added."


def _sides(explained: FilledText | ContinuedText) -> str:
    if isinstance(explained, FilledText) and explained.is_pair:
        return "Each side of this pair has its own vector. Positions restart at the second side."
    return "A single text has one side, so all rows get the same vector."
