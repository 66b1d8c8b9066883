"""Random segmentations of a text into the pieces of a SentencePiece model.

    BPE      characters ──merges, each left out with probability alpha──▶ pieces
    unigram  all segmentations ──one of them, drawn ∝ probability^alpha──▶ pieces

Both draw from the SplitMix64 generator that starts at the caller's seed, so the same model, text,
alpha and seed give the same pieces in every process. They follow SentencePiece's own sampling,
which does not: release 0.2.3 mixes a number of the process into every seed (measured: equal seeds
agree within a process and differ between two).

Text is normalised, with its spaces written as "▁". It is segmented word by word, because words come
back: results for the last `KEPT_WORDS` are kept.

This is the reference: compiled_segmentation.py draws the same by compiled code, where there is any.
"""

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, UInt64Array
from data_pipeline.random_keys import splitmix64

SPACE = "▁"
WORD = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")
NEVER = -math.inf  # score of a merge that is not in the model
UNKNOWN_PENALTY = 10.0  # how far SentencePiece scores unknown characters below every piece
DRAW_BITS = 53  # as many as a float holds, so that comparing draws with alpha is exact
KEPT_WORDS = 2**15  # up to 150 MB for a unigram model, 20 MB for BPE
LONGEST_KEPT_WORD = 24  # characters; longer ones seldom come back


@dataclass(frozen=True)
class Pieces:
    """The part of a model that segmentations are made of."""

    normal: Mapping[str, tuple[int]]  # the pieces that text yields, each with its id
    scores: Mapping[str, float]  # their scores. BPE: higher is merged first; unigram: log P
    unknown: int
    bytes: tuple[int, ...]  # the 256 pieces that spell unknown characters, or none

    def ids(self, piece: str) -> tuple[int, ...]:
        """The ids of a piece of the model, or of an unknown character."""
        if piece in self.normal:
            return self.normal[piece]
        if self.bytes:
            return tuple(self.bytes[byte] for byte in piece.encode())
        return (self.unknown,)

    def without_unknown_runs(self, ids: list[int]) -> list[int]:
        """The ids with neighbouring unknown characters as one piece, as SentencePiece has it."""
        if self.unknown not in ids:
            return ids
        return ids[:1] + [new for old, new in pairwise(ids) if not old == new == self.unknown]

    @cached_property
    def reach_across_spaces(self) -> bool:
        """Whether a piece has text on both sides of a space's beginning."""
        return any(SPACE in piece[1:] for piece in self.normal)

    @cached_property
    def unknown_score(self) -> float:
        """What an unknown character scores in a unigram model."""
        return min(self.scores.values()) - UNKNOWN_PENALTY

    def splitter(self) -> re.Pattern[str]:
        """The pattern of the parts of a text that no piece reaches across."""
        return re.compile(".+", re.DOTALL) if self.reach_across_spaces else WORD


class RandomSegmentation(ABC):
    """Draws segmentations of texts, as a seed for each determines."""

    @abstractmethod
    def sample_all(
        self, texts: list[str], alpha: float, seeds: UInt64Array, end: int
    ) -> FieldArrays:
        """Piece ids of normalised texts.

        Args:
            alpha: see the kind's `sample`.
            seeds: [texts].
            end: the id put behind each text.
        """


class PythonSegmentation(RandomSegmentation):
    """One of the kinds below, text after text."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    @abstractmethod
    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Piece ids of a normalised text."""

    def sample_all(
        self, texts: list[str], alpha: float, seeds: UInt64Array, end: int
    ) -> FieldArrays:
        sampled = [
            [*self.sample(text, alpha, seed), end]
            for text, seed in zip(texts, seeds.tolist(), strict=True)
        ]
        lengths = np.fromiter(map(len, sampled), dtype=np.int32, count=len(sampled))
        ids = np.fromiter(chain.from_iterable(sampled), dtype=np.int32, count=int(lengths.sum()))
        return FieldArrays(ids, lengths)


class BpeDropout(PythonSegmentation):
    """BPE-dropout (Provilkov et al. 2020), as SentencePiece does it.

    A merge is offered when its two pieces become neighbours; with probability alpha it is left out,
    and then not offered again. The paper's algorithm 1 offers it again at each later step.
    """

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(pieces)
        self._words = pieces.splitter()
        self._merged = lru_cache(KEPT_WORDS)(self._merge)

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Piece ids of a normalised text.

        Args:
            alpha: probability of leaving a merge out; 0 is plain BPE, 1 leaves single characters.
        """
        # A word of n characters has at most n - 1 merges at first and two more after each merge.
        draws = _draws(seed, 3 * len(text))
        left_out = (draws < int(alpha * 2**DRAW_BITS)).tobytes()
        ids: list[int] = []
        first = 0
        for word in self._words.findall(text):
            ids += self._segment(word, left_out[first : first + 3 * len(word)])
            first += 3 * len(word)
        return self._pieces.without_unknown_runs(ids)

    def _segment(self, word: str, left_out: bytes) -> list[int]:
        """Piece ids of a word.

        Args:
            left_out: for each merge, in the order in which they are offered, 1 if it is left out.
        """
        if len(word) > LONGEST_KEPT_WORD:
            return self._merge(word, {n for n, out in enumerate(left_out) if out})[0]
        # Only merges that are really offered are named, so that most words are found among those
        # kept.
        ids, offered = self._merged(word, ())
        without: tuple[int, ...] = ()
        while (number := left_out.find(1, without[-1] + 1 if without else 0, offered)) >= 0:
            without += (number,)
            ids, offered = self._merged(word, without)
        return ids

    def _merge(self, word: str, without: Collection[int]) -> tuple[list[int], int]:
        """Piece ids when the merges with the numbers `without` are left out; merges offered."""
        score = self._pieces.scores.get
        # A symbol lies where its first character does: what it is, and where its neighbours lie.
        symbols = list(word)
        before = list(range(-1, len(word) - 1))
        behind = list(range(1, len(word) + 1))
        # Of equal scores, the merge that lies first. Those of symbols that have grown stay there.
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
    """The pieces that can end at one position of a word."""

    thresholds: list[int]  # draws below the first choose piece 0, …; the last piece has none
    starts: list[int]
    ids: list[tuple[int, ...]]


class UnigramSampling(PythonSegmentation):
    """Subword regularisation (Kudo 2018, section 3.3): forward filtering, backward sampling."""

    def __init__(self, pieces: Pieces) -> None:
        super().__init__(pieces)
        self._words = pieces.splitter()
        self._longest = max(map(len, pieces.normal))
        self._filtered = lru_cache(KEPT_WORDS)(self._filter)

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Piece ids of a normalised text.

        Args:
            alpha: exponent of the segmentations' probabilities; 1 draws by the model's, 0 evenly.
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

    def thresholds(self, word: str, alpha: float) -> list[int]:
        """What draws are compared with in a word, of all its prefixes."""
        return [number for last in self._filter(word, alpha) for number in last.thresholds]

    def _filter(self, word: str, alpha: float) -> list[_LastPieces]:
        """For each prefix of the word, how likely each of its last pieces is."""
        log_sums = [0.0]  # by end: log Σ probability^alpha of all segmentations of word[:end]
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
    """Uniform integers below 2^DRAW_BITS."""
    return (splitmix64(seed, count) >> np.uint64(64 - DRAW_BITS)).astype(np.int64)
