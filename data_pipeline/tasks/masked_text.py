"""Conversion of ids to and from text that shows hidden tokens as [MASK].

    "A man is [MASK] a bike." ──masked_ids──▶ ids, with the mask's id ──masked_text──▶ the same text

A pair is shown as one text, with ||| between its sides: "A man is [MASK] a bike. ||| Ein Mann …".
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from data_pipeline.tasks.masking import vocabulary_of
from data_pipeline.tokenizers.tokenizer import Tokenizer

SHOWN_MASK = "[MASK]"
BETWEEN_SIDES = "|||"
_SPACE = "▁"


def masked_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a text, without BOS and EOS, in which each [MASK] is one token.

    If pieces include the space before a word, the space before [MASK] belongs to the hidden piece.
    """
    runs = text.split(SHOWN_MASK)
    keeps, joined = _keeps_spaces(tokenizer), _joins_spaces(tokenizer)
    ids: list[int] = []
    for number, run in enumerate(runs):
        if number:
            ids.append(vocabulary_of(tokenizer).mask)
        if keeps and joined and number < len(runs) - 1:
            run = run.removesuffix(" ")
        found = tokenizer.encode([run])[0].tolist() if run.strip() or (keeps and run) else []
        if not keeps and number and found and not run.startswith(" "):
            found = _without_space(tokenizer, found)
        ids += found
    return ids


def masked_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of some ids, with each hidden token shown as [MASK]."""
    mask = vocabulary_of(tokenizer).mask
    places = [-1, *(place for place, token in enumerate(ids) if token == mask), len(ids)]
    runs = tokenizer.decode([list(ids[start + 1 : stop]) for start, stop in pairwise(places)])
    if _keeps_spaces(tokenizer):
        space = " " if _joins_spaces(tokenizer) else ""
        return f"{space}{SHOWN_MASK}".join(runs)
    return f" {SHOWN_MASK} ".join(runs).strip()


def masked_pair_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of all or some ids of a pair, in which each side begins with BOS."""
    begins = [place for place, token in enumerate(ids) if token == tokenizer.bos_id and place]
    sides = [ids[start:stop] for start, stop in pairwise([0, *begins, len(ids)])]
    return f" {BETWEEN_SIDES} ".join(masked_text(tokenizer, side) for side in sides)


def _without_space(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """Remove the piece of a single space that some tokenizers put before any text."""
    return ids[1:] if tokenizer.piece(ids[0]) == _SPACE else ids


def _keeps_spaces(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer keeps a text's spaces and neither adds nor removes any."""
    return tokenizer.decode([tokenizer.encode([" a "])[0].tolist()])[0] == " a "


@lru_cache(maxsize=8)
def _joins_spaces(tokenizer: Tokenizer) -> bool:
    """Return whether any piece consists of a space followed by other characters."""
    pieces = map(tokenizer.piece, vocabulary_of(tokenizer).ordinary.tolist())
    return any(piece.startswith(_SPACE) and len(piece) > 1 for piece in pieces)
