"""Properties of a training text, and the settings of `transloom init` that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.tokenizers.sentence_piece import (
    SPECIAL_PIECES,
    SentencePieceTokenizer,
    vocabulary_range,
)
from transloom.cli.recipe_scales import Scale

# Maximum number of distinct words to keep of a corpus, and the number of words per piece from which
# the possible vocabulary sizes are determined. More words could only add pieces.
MAX_WORDS = 100_000
WORDS_PER_PIECE = 8
# Number of pairs whose lengths in tokens determine the maximum length of a sentence.
MAX_SAMPLE = 1000
KEPT_SHARE = 0.95  # minimum share of these pairs that do not exceed the maximum length
MAX_SENTENCE_TOKENS = 1024
# `prepare` cleans the text first, which can change the possible sizes. Therefore a vocabulary stays
# this far below the maximum, and above the minimum, where possible.
VOCABULARY_MARGIN = 1.1


@dataclass
class TextStatistics:
    """Properties of the training text that determine the settings.

    Attributes:
        characters: all different characters.
        words: up to `MAX_WORDS` different words, in the order in which they occur.
        sample: the first pairs.
        return_ended: files whose lines end at carriage returns.
    """

    pairs: int = 0
    held_out: int = 0
    target_characters: int = 0
    characters: set[str] = field(default_factory=set)
    words: dict[str, None] = field(default_factory=dict)
    sample: list[tuple[str, str]] = field(default_factory=list)
    return_ended: tuple[str, ...] = ()

    def add(self, source: str, target: str) -> None:
        self.pairs += 1
        self.target_characters += len(target)
        self.characters.update(source, target)
        if len(self.sample) < MAX_SAMPLE:
            self.sample.append((source, target))
        if len(self.words) < MAX_WORDS:
            self.words.update(dict.fromkeys(source.split() + target.split()))


def fitted_scale(scale: Scale, statistics: TextStatistics) -> Scale:
    """Return the settings with a vocabulary and a maximum length that suit the text.

    Raises:
        TokenizerError: no tokenizer can be trained.
    """
    words = list(islice(statistics.words, WORDS_PER_PIECE * scale.vocabulary))
    size = _possible_vocabulary(words, len(statistics.characters), scale.vocabulary)
    tokenizer = SentencePieceTokenizer.train(words, TokenizerConfig(vocabulary_size=size), "text")
    sides = zip(*statistics.sample, strict=True)
    lengths = [tokenizer.encode_field(list(side)).lengths for side in sides]
    needed = float(np.quantile(np.maximum(*lengths), KEPT_SHARE))
    longest = scale.longest
    while longest < min(needed, MAX_SENTENCE_TOKENS):
        longest *= 2
    micro_batch = max(scale.micro_batch, longest)
    return replace(scale, vocabulary=size, longest=longest, micro_batch=micro_batch)


def _possible_vocabulary(words: Sequence[str], characters: int, wanted: int) -> int:
    """Return the possible vocabulary size of the text's tokenizer that is nearest to `wanted`.

    Args:
        characters: the number of distinct characters of the text.
    """
    characters += len(SPECIAL_PIECES)
    limit = round(VOCABULARY_MARGIN * max(wanted, 2 * characters))
    fewest, most = vocabulary_range(words, TokenizerConfig(vocabulary_size=limit))
    fewest = min(max(fewest, characters), most)  # every character needs a piece
    below, above = round(most / VOCABULARY_MARGIN), round(fewest * VOCABULARY_MARGIN)
    return max(fewest, min(max(wanted, above), below))
