"""Random segmentations of a text into the pieces of a SentencePiece model.

    BPE      characters ──merges, each dropped with probability alpha──▶ pieces
    unigram  all segmentations ──one of them, drawn ∝ probability^alpha──▶ pieces

Both draw from the SplitMix64 generator that starts at the caller's seed. The same model, text,
alpha and seed therefore give the same pieces in every process. The algorithms follow
SentencePiece's sampling, which is not reproducible: release 0.2.3 mixes a process-specific number
into every seed (measured: results for equal seeds agree within a process and differ between
processes).

Texts are already normalised, with spaces written as "▁". A text is segmented word by word. Words
recur, so the results for the last `KEPT_WORDS` words are cached.
"""

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, UInt64Array, flattened
from data_pipeline.random_keys import splitmix64

SPACE = "▁"
WORD = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")
NEVER = -math.inf  # score of two symbols that do not form a piece
UNKNOWN_PENALTY = 10.0  # SentencePiece scores unknown characters this much lower than any piece
DRAW_BITS = 53  # the precision of a float, so that comparing draws with alpha is exact
KEPT_WORDS = 2**15  # cached words; at most 150 MB for a unigram model, 20 MB for BPE
LONGEST_KEPT_WORD = 24  # in characters; longer words seldom recur and are not cached


@dataclass(frozen=True)
class Pieces:
    """Pieces of a model, with ids and scores, from which segmentations are formed."""

    normal: Mapping[str, tuple[int]]  # the pieces of ordinary text, each with its id
    scores: Mapping[str, float]  # BPE: the highest is merged first; unigram: log probability
    unknown: int
    bytes: tuple[int, ...]  # ids of the 256 byte pieces for unknown characters; may be empty

    def ids(self, piece: str) -> tuple[int, ...]:
        """Return the ids that represent a piece of the model, or an unknown character."""
        if piece in self.normal:
            return self.normal[piece]
        if self.bytes:
            return tuple(self.bytes[byte] for byte in piece.encode())
        return (self.unknown,)

    def without_unknown_runs(self, ids: list[int]) -> list[int]:
        """Replace each run of unknown characters by one id, as SentencePiece does."""
        if self.unknown not in ids:
            return ids
        return ids[:1] + [new for old, new in pairwise(ids) if not old == new == self.unknown]

    @cached_property
    def reach_across_spaces(self) -> bool:
        """True if any piece has a space after its first character."""
        return any(SPACE in piece[1:] for piece in self.normal)

    @cached_property
    def unknown_score(self) -> float:
        """Score of an unknown character in a unigram model."""
        return min(self.scores.values()) - UNKNOWN_PENALTY


class RandomSegmentation(ABC):
    """Sampler of segmentations, each determined by the seed of its text."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        # A word's pieces do not depend on other words, unless pieces reach across spaces.
        self._words = re.compile(".+", re.DOTALL) if pieces.reach_across_spaces else WORD

    @abstractmethod
    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Sample the piece ids of a normalised text."""

    def sample_all(
        self, texts: list[str], alpha: float, seeds: UInt64Array, end: int
    ) -> FieldArrays:
        """Sample the piece ids of normalised texts.

        Args:
            alpha: see `BpeDropout.sample` and `UnigramSampling.sample`.
            seeds: [texts].
            end: the id appended to each text.
        """
        sampled = [
            [*self.sample(text, alpha, seed), end]
            for text, seed in zip(texts, seeds.tolist(), strict=True)
        ]
        return flattened(sampled)


class BpeDropout(RandomSegmentation):
    """BPE-dropout (Provilkov et al. 2020), in SentencePiece's variant.

    A merge is offered when its two pieces become neighbours. With probability alpha, the merge is
    dropped and never offered again. Algorithm 1 of the paper, in contrast, offers a dropped merge
    again in each later step.
    """

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(pieces)
        self._merged = lru_cache(KEPT_WORDS)(self._merge)

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Sample the piece ids of a normalised text.

        Args:
            alpha: probability of dropping a merge; 0 is plain BPE, 1 leaves single characters.
        """
        # A word of n characters has at most n - 1 merges at first, and each merge adds at most two.
        draws = _draws(seed, 3 * len(text))
        left_out = (draws < int(alpha * 2**DRAW_BITS)).tobytes()
        ids: list[int] = []
        first = 0
        for word in self._words.findall(text):
            ids += self._segment(word, left_out[first : first + 3 * len(word)])
            first += 3 * len(word)
        return self._pieces.without_unknown_runs(ids)

    def _segment(self, word: str, left_out: bytes) -> list[int]:
        """Return the piece ids of a word.

        Args:
            left_out: for each merge, in the order in which merges are offered, 1 if it is dropped.
        """
        if len(word) > LONGEST_KEPT_WORD:
            return self._merge(word, {n for n, out in enumerate(left_out) if out})[0]
        # The cache key contains only those dropped merges that are actually offered, so that most
        # words are found in the cache.
        ids, offered = self._merged(word, ())
        without: tuple[int, ...] = ()
        while (number := left_out.find(1, without[-1] + 1 if without else 0, offered)) >= 0:
            without += (number,)
            ids, offered = self._merged(word, without)
        return ids

    def _merge(self, word: str, without: Collection[int]) -> tuple[list[int], int]:
        """Return the piece ids of a word, and the number of offered merges.

        Args:
            without: numbers of the dropped merges, in the order in which merges are offered.
        """
        score = self._pieces.scores.get
        # `symbols` has the text of a symbol at the index of its first character. At the same index,
        # `before` and `behind` have the indices of the previous and the next symbol.
        symbols = list(word)
        before = list(range(-1, len(word) - 1))
        behind = list(range(1, len(word) + 1))
        # If scores are equal, the leftmost merge comes first. Symbols keep their index when they
        # grow.
        merges = [
            (-found, at, left, right)
            for at, (left, right) in enumerate(pairwise(symbols))
            if (found := score(left + right, NEVER)) > NEVER
        ]
        heapify(merges)
        offered = 0
        while merges:
            _, at, left, right = heappop(merges)
            other = behind[at]
            if symbols[at] != left or other == len(word) or symbols[other] != right:
                continue
            offered += 1
            if offered - 1 in without:
                continue
            symbols[at], symbols[other] = left + right, ""
            behind[at] = behind[other]
            if behind[at] < len(word):
                before[behind[at]] = at
            for first in (before[at], at):
                second = behind[first] if first >= 0 else len(word)
                if second < len(word):
                    pair = symbols[first], symbols[second]
                    if (found := score("".join(pair), NEVER)) > NEVER:
                        heappush(merges, (-found, first, *pair))
        ids = (number for symbol in symbols if symbol for number in self._pieces.ids(symbol))
        return list(ids), offered


class _LastPieces(NamedTuple):
    """Possible last pieces of a prefix of a word, in the same order in all lists.

    `thresholds` has no entry for the last of these pieces.
    """

    thresholds: list[int]  # ascending; a draw selects the piece of the first larger threshold
    starts: list[int]
    ids: list[tuple[int, ...]]


class UnigramSampling(RandomSegmentation):
    """Subword regularisation (Kudo 2018, section 3.3): forward filtering, backward sampling."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(pieces)
        self._longest = max(map(len, pieces.normal))
        self._filtered = lru_cache(KEPT_WORDS)(self._filter)

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Sample the piece ids of a normalised text.

        Args:
            alpha: exponent of the probabilities of segmentations. 1 draws by the model's
                probabilities, 0 uniformly.
        """
        draws = _draws(seed, len(text)).tolist()
        ids: list[int] = []
        first = 0
        for word in self._words.findall(text):
            keep = len(word) <= LONGEST_KEPT_WORD
            last_pieces = (self._filtered if keep else self._filter)(word, alpha)
            found = []
            end = len(word)
            while end:
                last = last_pieces[end - 1]
                chosen = bisect_right(last.thresholds, draws[first + end - 1])
                found.append(last.ids[chosen])
                end = last.starts[chosen]
            ids += [number for piece in reversed(found) for number in piece]
            first += len(word)
        return self._pieces.without_unknown_runs(ids)

    def _filter(self, word: str, alpha: float) -> list[_LastPieces]:
        """Return the possible last pieces of each prefix of the word, with thresholds for draws."""
        log_sums = [0.0]  # for each end: log Σ probability^alpha of all segmentations of word[:end]
        last_pieces = []
        for end in range(1, len(word) + 1):
            starts, logs = [], []
            for start in range(max(0, end - self._longest), end):
                score = self._pieces.scores.get(word[start:end])
                if score is None and start == end - 1:
                    score = self._pieces.unknown_score
                if score is not None:
                    starts.append(start)
                    logs.append(log_sums[start] + alpha * score)
            highest = max(logs)
            sums = list(accumulate(math.exp(log - highest) for log in logs))
            log_sums.append(highest + math.log(sums[-1]))
            thresholds = [int(part / sums[-1] * 2**DRAW_BITS) for part in sums[:-1]]
            ids = [self._pieces.ids(word[start:end]) for start in starts]
            last_pieces.append(_LastPieces(thresholds, starts, ids))
        return last_pieces


def _draws(seed: int, count: int) -> Int64Array:
    """Return the generator's first `count` outputs as integers below 2^DRAW_BITS."""
    return (splitmix64(seed, count) >> np.uint64(64 - DRAW_BITS)).astype(np.int64)
