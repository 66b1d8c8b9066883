"""Conversion of an alignment of pieces to an alignment of words.

    pieces of both sides ─▶ words of each piece ─▶ pairs of pieces ─▶ pairs of words

SentencePiece writes the space before a word as ▁. A word is therefore the text from one ▁ to the
next in a sentence's pieces. Words are numbered from 0. They are words of the normalised sentence,
in which SentencePiece has replaced no-break spaces by spaces. Two words are paired if any of
their pieces are paired.
"""

from collections.abc import Sequence

from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.inspection.alignment import Alignment

SPACE = "▁"

WordNumbers = list[tuple[int, ...]]  # for each piece, the numbers of its words, mostly one


def word_numbers(pieces: Sequence[str]) -> WordNumbers:
    """Return, for each piece, the numbers of the words that it is a part of.

    A piece that is only ▁ belongs to the word that follows. At the end of a sentence it belongs to
    no word. An empty piece belongs to no word.
    """
    found: WordNumbers = []
    newest, inside = -1, False
    for piece in pieces:
        covered: list[int] = []
        for character in piece:
            if character == SPACE:
                inside = False
                continue
            if not inside:
                newest, inside = newest + 1, True
            if newest not in covered:
                covered.append(newest)
        lone_space = piece and not covered
        found.append((newest + 1,) if lone_space else tuple(covered))
    return [tuple(number for number in numbers if number <= newest) for numbers in found]


def words_read(tokenizer: Tokenizer, ids: Sequence[int]) -> WordNumbers:
    """Return the words of each piece of a source sentence; its tag and EOS belong to no word."""
    return word_numbers(_without_control(tokenizer, ids))


def words_written(tokenizer: Tokenizer, ids: Sequence[int]) -> WordNumbers:
    """Return the words of each piece of a translation, numbered like the words of its text.

    An unknown piece is a separate word, since SentencePiece decodes it to ⁇ between spaces.
    """
    pieces = _without_control(tokenizer, ids)
    unknown = tokenizer.decode([[tokenizer.unk_id]])[0].replace(" ", SPACE)
    spelled = zip(pieces, ids, strict=True)
    return word_numbers([unknown if n == tokenizer.unk_id else piece for piece, n in spelled])


def fold(alignment: Alignment, source: WordNumbers, target: WordNumbers) -> Alignment:
    """Convert pairs of pieces to distinct, sorted pairs (source word, target word).

    Args:
        source, target: for each piece, the numbers of its words.
    """
    pairs = {
        (source_word, target_word)
        for source_piece, target_piece in alignment
        for source_word in source[source_piece]
        for target_word in target[target_piece]
    }
    return tuple(sorted(pairs))


def _without_control(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the pieces of the ids, with "" for control pieces, which have no text."""
    texts = tokenizer.decode([[token_id] for token_id in ids])
    pieces = [tokenizer.piece(token_id) for token_id in ids]
    return [
        piece if text.strip() or not piece.strip(SPACE) else ""
        for piece, text in zip(pieces, texts, strict=True)
    ]
