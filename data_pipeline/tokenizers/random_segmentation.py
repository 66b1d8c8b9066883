"""Random segmentations of a text into the pieces of a SentencePiece model.

    BPE      characters ──merges, each left out with probability alpha──▶ pieces
    unigram  all segmentations ──one of them, drawn ∝ probability^alpha──▶ pieces

Both draw from the SplitMix64 generator that starts at the caller's seed, so the same model, text,
alpha and seed give the same pieces in every process. They follow SentencePiece's own sampling,
which does not: release 0.2.3 mixes a number of the process into every seed (measured: equal seeds
agree within a process and differ between two).

Text is normalised, with its spaces written as "▁". It is segmented word by word, because words come
back: results for the last `KEPT_WORDS` are kept.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from data_pipeline.arrays import Int64Array
from data_pipeline.random_keys import splitmix64

SPACE = "▁"
WORD = re.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")
NEVER = -math.inf  # score of a merge that is not in the model, or was left out
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

    def splitter(self) -> re.Pattern[str]:
        """The pattern of the parts of a text that no piece reaches across."""
        if any(SPACE in piece[1:] for piece in self.normal):
            return re.compile(".+", re.DOTALL)
        return WORD


class BpeDropout:
    """BPE-dropout (Provilkov et al. 2020), as SentencePiece does it.

    A merge is offered when its two pieces become neighbours; with probability alpha it is left out,
    and then not offered again. The paper's algorithm 1 offers it again at each later step.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
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
        symbols = list(word)
        scores = [score(left + right, NEVER) for left, right in pairwise(symbols)]
        offered = 0
        while scores and (best := max(scores)) > NEVER:
            at = scores.index(best)
            if offered in without:
                scores[at] = NEVER
            else:
                symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
                del scores[at]
                if at > 0:
                    scores[at - 1] = score(symbols[at - 1] + symbols[at], NEVER)
                if at < len(scores):
                    scores[at] = score(symbols[at] + symbols[at + 1], NEVER)
            offered += 1
        return [number for symbol in symbols for number in self._pieces.ids(symbol)], offered


class _LastPieces(NamedTuple):
    """The pieces that can end at one position of a word."""

    thresholds: list[int]  # draws below the first choose piece 0, …; the last piece has none
    starts: list[int]
    ids: list[tuple[int, ...]]


class UnigramSampling:
    """Subword regularisation (Kudo 2018, section 3.3): forward filtering, backward sampling."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._words = pieces.splitter()
        self._longest = max(map(len, pieces.normal))
        self._unknown_score = min(pieces.scores.values()) - UNKNOWN_PENALTY
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

    def _filter(self, word: str, alpha: float) -> list[_LastPieces]:
        """For each prefix of the word, how likely each of its last pieces is."""
        log_sums = [0.0]  # by end: log Σ probability^alpha of all segmentations of word[:end]
        last_pieces = []
        for end in range(1, len(word) + 1):
            starts, logs = [], []
            for start in range(max(0, end - self._longest), end):
                score = self._pieces.scores.get(word[start:end])
                if score is None and start == end - 1:
                    score = self._unknown_score
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
