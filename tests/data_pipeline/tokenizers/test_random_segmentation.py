"""Random segmentations, compared with brute force and with SentencePiece's sampling."""

import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from data_pipeline.random_keys import splitmix64
from data_pipeline.tokenizers import random_segmentation
from data_pipeline.tokenizers.random_segmentation import BpeDropout, Pieces, UnigramSampling
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

SAMPLES = 10_000
WORD = "badefi"

# Settings that change how text is split before, and joined after, segmentation.
SETTINGS: list[dict[str, object]] = [
    {},
    {"byte_fallback": True, "vocab_size": 370},
    {"split_by_whitespace": False, "vocab_size": 200},
    {"treat_whitespace_as_suffix": True},
    {"add_dummy_prefix": False, "remove_extra_whitespaces": False},
]
UNUSUAL = ["", "ba☃☃de ☃ fi", "☃☃", "ba  de   fi", "ba" * 30, "ﬁ ①", "ba de " * 20 + "☃"]


@pytest.fixture(scope="module")
def text(sentences: Callable[[int, int], list[str]]) -> list[str]:
    return sentences(150, 7) + UNUSUAL


@pytest.fixture(scope="module")
def train(text: list[str]) -> Callable[..., Tokenizer]:
    def train(kind: str, **settings: object) -> Tokenizer:
        model = io.BytesIO()
        defaults = {"vocab_size": 110, "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
        SentencePieceTrainer.train(
            sentence_iterator=iter(text[:150]),
            model_writer=model,
            model_type=kind,
            num_threads=1,
            minloglevel=2,
            **defaults | settings,
        )
        return SentencePieceTokenizer(model.getvalue(), kind)

    return train


def sample(tokenizer: Tokenizer, lines: list[str], alpha: float, seed: int = 0) -> list[list[int]]:
    field = tokenizer.sample_field(lines, splitmix64(seed, len(lines)), alpha)
    return [ids.tolist()[:-1] for ids in np.split(field.ids, np.cumsum(field.lengths)[:-1])]


def best(tokenizer: Tokenizer, lines: list[str]) -> list[list[int]]:
    return [ids.tolist() for ids in tokenizer.encode(lines)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_bpe_dropout_gives_the_best_pieces_at_0_and_characters_at_1(
    train: Callable[..., Tokenizer], text: list[str], settings: dict[str, object]
) -> None:
    tokenizer = train("bpe", **settings)
    assert sample(tokenizer, text, 0.0) == best(tokenizer, text)
    for alpha in (0.1, 1.0):
        sampled = sample(tokenizer, text, alpha)
        assert tokenizer.decode(sampled) == tokenizer.decode(best(tokenizer, text))
    pieces = {tokenizer.piece(number) for ids in sampled for number in ids}
    assert all(len(piece) == 1 for piece in pieces if not piece.startswith("<"))


@pytest.mark.matrix
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_unigram_sampling_gives_the_best_pieces_at_a_large_alpha(
    train: Callable[..., Tokenizer], text: list[str], settings: dict[str, object]
) -> None:
    tokenizer = train("unigram", **settings)
    assert sample(tokenizer, text, 1e4) == best(tokenizer, text), "the most probable"
    for alpha in (0.0, 0.1, 1.0):
        sampled = sample(tokenizer, text, alpha)
        assert tokenizer.decode(sampled) == tokenizer.decode(best(tokenizer, text))


def scores_of(tokenizer: Tokenizer) -> dict[str, float]:
    model = SentencePieceProcessor(model_proto=tokenizer.model)
    return {model.id_to_piece(n): model.get_score(n) for n in range(4, model.get_piece_size())}


Segmentation = tuple[str, ...]


def dropout_probabilities(
    symbols: Segmentation, scores: Mapping[str, float], alpha: float, left_out: frozenset[int]
) -> dict[Segmentation, float]:
    """Return the probability of each outcome of BPE-dropout.

    left_out: pairs, by their first symbol, that stay separate.
    """
    offers = [
        (-scores[symbols[at] + symbols[at + 1]], at)
        for at in range(len(symbols) - 1)
        if at not in left_out and symbols[at] + symbols[at + 1] in scores
    ]
    if not offers:
        return {symbols: 1.0}
    at = min(offers)[1]
    merged = (*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :])
    still = {pair for pair in left_out if pair < at - 1}
    still |= {pair - 1 for pair in left_out if pair > at + 1}
    found: dict[Segmentation, float] = defaultdict(float)
    for share, outcomes in (
        (alpha, dropout_probabilities(symbols, scores, alpha, left_out | {at})),
        (1 - alpha, dropout_probabilities(merged, scores, alpha, frozenset(still))),
    ):
        for outcome, probability in outcomes.items():
            found[outcome] += share * probability
    return found


def segmentations(text: str, scores: Mapping[str, float]) -> Iterator[Segmentation]:
    if not text:
        yield ()
    for stop in range(1, len(text) + 1):
        if text[:stop] in scores:
            yield from ((text[:stop], *rest) for rest in segmentations(text[stop:], scores))


def unigram_probabilities(scores: Mapping[str, float], alpha: float) -> dict[Segmentation, float]:
    """Return the probability of each segmentation (Kudo 2018, section 3.3)."""
    weights = {
        pieces: math.exp(alpha * sum(map(scores.__getitem__, pieces)))
        for pieces in segmentations(f"▁{WORD}", scores)
    }
    return {pieces: weight / sum(weights.values()) for pieces, weight in weights.items()}


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("kind", "alpha"),
    [("bpe", 0.1), ("bpe", 0.5), ("unigram", 0.0), ("unigram", 0.1), ("unigram", 0.3)],
)
def test_sampling_is_unbiased(train: Callable[..., Tokenizer], kind: str, alpha: float) -> None:
    """Pearson's chi-square is computed for transloom and SentencePiece, whose seed is not fixed."""
    tokenizer = train(kind, vocab_size=60)
    scores = scores_of(tokenizer)
    if kind == "bpe":
        expected = dropout_probabilities(tuple(f"▁{WORD}"), scores, alpha, frozenset())
    else:
        expected = unigram_probabilities(scores, alpha)
    assert math.isclose(sum(expected.values()), 1)
    assert len(expected) >= 6

    model = SentencePieceProcessor(model_proto=tokenizer.model)
    options = {"enable_sampling": True, "alpha": alpha, "nbest_size": -1, "num_threads": 1}
    for drawn in (
        sample(tokenizer, [WORD] * SAMPLES, alpha),
        model.encode([WORD] * SAMPLES, **options),
    ):
        counts = Counter(tuple(map(tokenizer.piece, ids)) for ids in drawn)
        assert set(counts) <= set(expected)
        often = {pieces: SAMPLES * p for pieces, p in expected.items() if SAMPLES * p >= 5}
        chi_square = sum((counts[pieces] - mean) ** 2 / mean for pieces, mean in often.items())
        degrees = len(often)
        assert degrees > 1
        assert chi_square < degrees + 12 * math.sqrt(2 * degrees)
        seldom = sum(count for pieces, count in counts.items() if pieces not in often)
        assert seldom < 50 + 2 * (SAMPLES - sum(often.values()))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_cached_pieces_do_not_change_samples(
    train: Callable[..., Tokenizer],
    text: list[str],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used, fresh = train(kind), train(kind)
    for alpha in (0.3, 0.1):
        for seed in (2, 1):
            sampled = sample(used, text, alpha, seed)
    assert sample(fresh, text, 0.1, 1) == sampled
    monkeypatch.setattr(random_segmentation, "LONGEST_KEPT_WORD", 0)
    assert sample(train(kind), text, 0.1, 1) == sampled


def test_samples_equal_golden_numbers() -> None:
    """The data of every released run depends on these numbers. Never change them."""
    scores = {"▁": -9.0, "a": -8.0, "b": -7.0, "ab": -1.0, "ba": -2.0, "▁ab": -3.0, "abba": -4.0}
    normal = {piece: (number,) for number, piece in enumerate(scores, start=4)}
    pieces = Pieces(normal, scores, unknown=1, bytes=())
    text = "▁abba▁ab?!▁baab"
    bpe = [BpeDropout(pieces).sample(text, 0.3, seed) for seed in (0, 1, 2**64 - 1)]
    unigram = [UnigramSampling(pieces).sample(text, 0.2, seed) for seed in (0, 1, 2**64 - 1)]
    assert bpe == [
        [4, 10, 9, 1, 4, 6, 5, 7],
        [9, 8, 4, 5, 6, 1, 4, 8, 7],
        [4, 10, 9, 1, 4, 8, 5, 6],
    ]
    assert unigram == [
        [4, 10, 9, 1, 4, 8, 7],
        [4, 7, 8, 9, 1, 4, 8, 7],
        [9, 8, 9, 1, 4, 8, 7],
    ]
