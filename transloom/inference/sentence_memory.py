"""Estimate the memory that a translation needs, and split sentences that are too long.

The encoder's attention scores need memory in proportion to the square of a sentence's length. The
decoder's cache needs memory in proportion to the length. With a tiny model that has four heads, a
sentence of 10,000 tokens takes 5 GB.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal

from data_pipeline.corpora.formats import in_parts
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.config.transformer import DecodingConfig, ModelConfig
from trainer.errors import TranslationError

# Number of copies of a layer's attention scores that are in memory at the same time: raw, masked,
# and after the softmax.
COPIES_OF_SCORES = 3
# Maximum ratio of the decoder cache's capacity to the number of positions in use.
MAX_CACHE_OVERALLOCATION = 2

# Approximate number of characters that one tokenizer call encodes when tokens are counted.
CHARACTERS_COUNTED_AT_ONCE = 2**20

_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？｡])")
_SPACES = re.compile(r"\s+")

# Function that returns the number of tokens of each text, including EOS and a tag.
Count = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class SentenceMemory:
    """Memory that the search for a sentence's translation needs.

    Attributes:
        config: configuration of the network, or of an ensemble's first network.
        element_bytes: bytes of one number in the network.
        others: configurations of an ensemble's other networks.
    """

    config: ModelConfig
    decoding: DecodingConfig
    element_bytes: int
    others: tuple[ModelConfig, ...] = ()

    @property
    def of_position(self) -> int:
        """Bytes of one position in the decoder's cache, with keys and values of all hypotheses."""
        networks = (self.config, *self.others)
        numbers = sum(2 * c.decoder_layers * c.groups * c.head_width for c in networks)
        return numbers * self.decoding.beam_size * self.element_bytes

    @property
    def of_score(self) -> int:
        """Bytes of the attention scores of one pair of positions, in all heads of one layer."""
        return max(c.heads for c in (self.config, *self.others)) * self.element_bytes

    def bytes(self, tokens: int) -> int:
        """Return the maximum memory, in bytes, for a sentence with this number of tokens."""
        output = int(self.decoding.max_length_factor * tokens) + self.decoding.max_extra_length
        scores = COPIES_OF_SCORES * self.of_score * tokens**2
        return scores + MAX_CACHE_OVERALLOCATION * self.of_position * (tokens + output)

    def longest(self, available: int) -> int:
        """Return the maximum tokens of a sentence that can be translated with `available` bytes."""
        low, high = 0, 1
        while self.bytes(high) <= available:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bytes(middle) <= available else (low, middle)
        return low


@dataclass(frozen=True)
class SentenceLimit:
    """Maximum tokens of a sentence, EOS and tag included, and the reason for the limit.

    Attributes:
        reason: source of the limit: the lengths in training, an option of the user, or the
            available memory.
    """

    tokens: int
    reason: Literal["training", "wish", "memory"]

    def __str__(self) -> str:
        return {
            "training": f"the run was trained on at most {self.tokens:,} (data.max_source_length)",
            "wish": f"the requested maximum is {self.tokens:,}",
            "memory": f"the available memory suffices for only {self.tokens:,}",
        }[self.reason]


class LongSentenceError(TranslationError):
    """Raised when sentences have more tokens than the limit.

    Attributes:
        sentences: (index, number of tokens) of each sentence that is too long. The index refers to
            the sentences that were to be translated.
    """

    def __init__(self, sentences: Sequence[tuple[int, int]], limit: SentenceLimit) -> None:
        first, tokens = sentences[0]
        super().__init__(
            f"Sentence {first + 1:,} has {tokens:,} tokens, EOS included, but {limit}. Split the "
            "sentence"
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
    for some in in_parts(sentences, len(sentences), CHARACTERS_COUNTED_AT_ONCE, len):
        counts += tokenizer.encode_field(some, tag).lengths.tolist()
    return counts


def parts_of(sentence: str, most: int, count: Count) -> list[str]:
    """Split a sentence into parts of at most `most` tokens each; only spaces are lost.

    A sentence is cut at sentence ends if that suffices, otherwise also at spaces. Each part is as
    long as `most` allows. If a part without spaces is too long, it is halved until its parts are
    short enough. A part that is a single character may still have more than `most` tokens.
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
    """Cut a text at matches of `places` into parts that are as long as `most` tokens allow."""
    bounds = [0, *(found.end() for found in places.finditer(text)), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(bounds)]
    beside = count([""])[0]  # number of tokens for EOS and tag, which every part has
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
