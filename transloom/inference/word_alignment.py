"""From an alignment of pieces to one of words.

    pieces of both sides ─▶ which words each has letters of ─▶ pairs of pieces ─▶ pairs of words

SentencePiece writes the space before a word as ▁, so words are what stands between the ▁s of a
sentence's pieces, numbered from 0. The sentence is the one that SentencePiece normalised: in it a
no-break space separates words as any other space does. Two words are a pair if any of their pieces
are.
"""

from collections.abc import Sequence

from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.inspection.alignment import Alignment

SPACE = "▁"

WordNumbers = list[tuple[int, ...]]  # for each piece the words that it has letters of, mostly one


def word_numbers(pieces: Sequence[str]) -> WordNumbers:
    """The words of each piece.

    A ▁ by itself belongs to the word that it begins; at the end it belongs to none, nor does "".
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
    """The words of the pieces of a given sentence; its tag and EOS belong to no word."""
    return word_numbers(_without_control(tokenizer, ids))


def words_written(tokenizer: Tokenizer, ids: Sequence[int]) -> WordNumbers:
    """The words of the pieces of a translation, numbered as the words of its text.

    In it an unknown piece is a word of its own: SentencePiece decodes it to ⁇ between spaces.
    """
    pieces = _without_control(tokenizer, ids)
    unknown = tokenizer.decode([[tokenizer.unk_id]])[0].replace(" ", SPACE)
    spelled = zip(pieces, ids, strict=True)
    return word_numbers([unknown if n == tokenizer.unk_id else piece for piece, n in spelled])


def fold(alignment: Alignment, source: WordNumbers, target: WordNumbers) -> Alignment:
    """The pairs (source word, target word), each once, in order."""
    pairs = {
        (source_word, target_word)
        for source_piece, target_piece in alignment
        for source_word in source[source_piece]
        for target_word in target[target_piece]
    }
    return tuple(sorted(pairs))


def _without_control(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The pieces, with "" for those that are no text: decoding leaves only spaces of them."""
    texts = tokenizer.decode([[token_id] for token_id in ids])
    pieces = [tokenizer.piece(token_id) for token_id in ids]
    return [
        piece if text.strip() or not piece.strip(SPACE) else ""
        for piece, text in zip(pieces, texts, strict=True)
    ]
