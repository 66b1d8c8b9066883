"""Memory that the translation of a sentence needs, and splitting of sentences that are too long.

The encoder's attention scores grow with the square of a sentence's length, and the decoder's cache
grows with the length. 10,000 tokens of a tiny model with four heads take 5 GB.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.transformer import DecodingConfig, ModelConfig
from trainer.errors import TranslationError

# Copies of a layer's attention scores in memory at once: the products, the masked ones, the
# softmax.
COPIES_OF_SCORES = 3
# A cache has capacity for up to twice its present positions.
ROOM_OF_CACHE = 2

# Maximum characters of the texts that are encoded at once only to count their tokens.
CHARACTERS_COUNTED_AT_ONCE = 2**20

_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？｡])")
_SPACES = re.compile(r"\s+")

# Function that returns the number of tokens of each text, EOS and tag included.
Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class SentenceMemory:
    """Memory of one sentence's search.

    Attributes:
        others: configurations of an ensemble's networks, except the first.
    """

    config: ModelConfig
    decoding: DecodingConfig
    element_bytes: int
    others: tuple[ModelConfig, ...] = ()

    @property
    def of_position(self) -> int:
        """Bytes of one position in the decoder's cache: keys and values of each hypothesis."""
        networks = (self.config, *self.others)
        numbers = sum(2 * c.decoder_layers * c.groups * c.head_width for c in networks)
        return numbers * self.decoding.beam_size * self.element_bytes

    @property
    def of_score(self) -> int:
        """Bytes of the scores of one pair of positions, in all heads, for one copy."""
        return max(c.heads for c in (self.config, *self.others)) * self.element_bytes

    def bytes(self, tokens: int) -> int:
        """Return the maximum memory of a sentence with this number of tokens."""
        output = int(self.decoding.max_length_factor * tokens) + self.decoding.max_extra_length
        scores = COPIES_OF_SCORES * self.of_score * tokens**2
        return scores + ROOM_OF_CACHE * self.of_position * (tokens + output)

    def longest(self, available: int) -> int:
        """Return the maximum tokens of a sentence that this number of bytes suffices for."""
        low, high = 0, 1
        while self.bytes(high) <= available:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bytes(middle) <= available else (low, middle)
        return low


@dataclass(frozen=True)
class SentenceLimit:
    """Maximum tokens of a sentence, EOS and tag included, and the reason for the limit."""

    tokens: int
    reason: Literal["training", "wish", "memory"]

    def __str__(self) -> str:
        return {
            "training": f"this run was trained on at most {self.tokens:,} (data.max_source_length)",
            "wish": f"at most {self.tokens:,} were asked for",
            "memory": f"the memory that is left suffices for {self.tokens:,}",
        }[self.reason]


class LongSentenceError(TranslationError):
    """Sentences have more tokens than the limit.

    Attributes:
        sentences: for each, its index among the given sentences, from 0, and its number of tokens.
    """

    def __init__(self, sentences: Sequence[tuple[int, int]], limit: SentenceLimit) -> None:
        first, tokens = sentences[0]
        super().__init__(
            f"Sentence {first + 1:,} has {tokens:,} tokens, EOS included, and {limit}. Split it"
        )
        self.sentences = tuple(sentences)
        self.limit = limit

    def __reduce__(self) -> tuple[type["LongSentenceError"], tuple[object, SentenceLimit]]:
        return LongSentenceError, (self.sentences, self.limit)  # for pickling


def count_tokens(
    tokenizer: Tokenizer, sentences: Sequence[str], tag: str | None = None
) -> list[int]:
    """Return the number of tokens of each sentence as a model reads it, with tag and EOS."""
    counts: list[int] = []
    while len(counts) < len(sentences):
        characters, stop = 0, len(counts)
        while stop < len(sentences) and characters < CHARACTERS_COUNTED_AT_ONCE:
            characters += len(sentences[stop])
            stop += 1
        some = list(sentences[len(counts) : stop])
        counts += tokenizer.encode_field(some, tag).lengths.tolist()
    return counts


def parts_of(sentence: str, most: int, count: Count) -> list[str]:
    """Split a sentence into parts of at most `most` tokens each, without losing text except spaces.

    It is cut at sentence ends if that suffices, otherwise at spaces, otherwise anywhere. Each part
    is as long as possible. A single character may still have more than `most` tokens.
    """
    parts = [sentence]
    for places in (_SENTENCE_ENDS, _SPACES):
        lengths = count(parts)
        parts = [
            part
            for text, length in zip(parts, lengths, strict=True)
            for part in ([text] if length <= most else _filled(text, places, most, count))
        ]
    while any(too_long := [length > most for length in count(parts)]):
        halved = [
            half
            for text, is_long in zip(parts, too_long, strict=True)
            for half in (_halves(text) if is_long else [text])
        ]
        if len(halved) == len(parts):
            break
        parts = halved
    return [part for part in (part.strip() for part in parts) if part] or [""]


def _filled(text: str, places: re.Pattern[str], most: int, count: Count) -> list[str]:
    """Cut the text at some of the places, so that each part has as many tokens as allowed."""
    bounds = [0, *(found.end() for found in places.finditer(text)), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(bounds)]
    beside = count([""])[0]  # EOS and tag, which every part has once
    before = [0, *accumulate(length - beside for length in count(pieces))]
    parts, first = [], 0
    for number in range(1, len(pieces) + 1):
        if number == len(pieces) or before[number + 1] - before[first] > most - beside:
            parts.append("".join(pieces[first:number]))
            first = number
    return parts


def _halves(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]] if middle else [text]
