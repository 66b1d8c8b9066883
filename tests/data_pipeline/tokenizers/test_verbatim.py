"""Verbatim models decode text to exactly what was encoded."""

import io
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from data_pipeline.config.text import TextTokenizerConfig
from data_pipeline.errors import TokenizerError
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer, escape, unescape
from data_pipeline.tokenizers.tokenizer import Tokenizer, train_tokenizer

TRICKY = [
    "",
    " ",
    "\n",
    "  two  spaces ",
    "\t\ttabs\t",
    "\n\nlines\n \n",
    "\r\nx\ry",
    "▁▁ ▁",
    "▅",
    "␊␛n␛",
    "a\0b",
    "é e\u0301 ﬁ ½ Å",
    "\ufeffx\ufffd",
    "\u2028\u2029\x85\x0b",
    "😀👩‍👩‍👧",
    "<s></s><unk><pad><0x41>",
    " ⁇ ",
]
WORDS = "a line of words to learn from, and another: (x + y) == z\n"
any_text = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\t ▁▅␊␛nesub0\0\x1f")
)


def round_trip(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    ids = tokenizer.encode(texts)
    return tokenizer.decode([sequence.tolist() for sequence in ids])


@pytest.fixture(scope="module", params=["bpe", "unigram", "char"])
def with_bytes(request: pytest.FixtureRequest) -> Tokenizer:
    config = TextTokenizerConfig(type=request.param, vocabulary_size=290, byte_fallback=True)
    return train_tokenizer([WORDS, *WORDS.split()] * 20, config, "test")


def test_difficult_text_is_decoded_unchanged(with_bytes: Tokenizer) -> None:
    assert round_trip(with_bytes, TRICKY) == TRICKY


@given(st.lists(any_text))
@settings(deadline=None)
def test_bytes_decode_any_text_unchanged(with_bytes: Tokenizer, texts: list[str]) -> None:
    assert round_trip(with_bytes, texts) == texts
    assert not any(with_bytes.unk_id in ids for ids in with_bytes.encode(texts))


@given(st.lists(any_text, min_size=1))
@settings(deadline=None, max_examples=60)
def test_text_of_known_characters_is_decoded_unchanged(texts: list[str]) -> None:
    config = TextTokenizerConfig(type="char", vocabulary_size=10_000)
    tokenizer = train_tokenizer([*texts, "some text"], config, "test")
    assert round_trip(tokenizer, texts) == texts
    assert round_trip(tokenizer, ["".join(texts)]) == ["".join(texts)]


@given(any_text)
def test_escaped_text_contains_no_character_that_sentencepiece_changes(text: str) -> None:
    escaped = escape(text)
    assert unescape(escaped) == text
    assert not re.search("[\n▁▅\0\x1f]", escaped)


def test_foreign_models_are_not_taken_for_verbatim() -> None:
    """The foreign model has no normalisation either, but has a piece with a line end."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 20),
        model_writer=model,
        model_type="char",
        vocab_size=40,
        hard_vocab_limit=False,
        user_defined_symbols=["\n"],
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    tokenizer = SentencePieceTokenizer(model.getvalue(), "test")
    (ids,) = tokenizer.encode(["a\nd"])
    assert [tokenizer.piece(number) for number in ids.tolist()] == ["a", "\n", "d"]


def test_a_document_is_encoded_line_by_line(with_bytes: Tokenizer) -> None:
    document = WORDS * 3 + "\n\n" + WORDS.strip()
    lines = [WORDS] * 3 + ["\n", "\n", WORDS.strip()]
    (whole,) = with_bytes.encode([document])
    parts = with_bytes.encode(lines)
    assert whole.tolist() == [number for ids in parts for number in ids.tolist()]
    field = with_bytes.encode_field([document, "", "x"])
    assert field.lengths.tolist() == [len(whole) + 1, 1, len(with_bytes.encode(["x"])[0]) + 1]
    assert field.ids[len(whole)] == field.ids[-1] == with_bytes.eos_id


@pytest.mark.long
def test_every_character_is_decoded_unchanged() -> None:
    """Try all characters, to find those that SentencePiece replaces."""
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    starts = range(0, len(characters), 1000)
    texts = ["a" + "".join(characters[start : start + 1000]) + "b" for start in starts]
    config = TextTokenizerConfig(type="char", vocabulary_size=2_000_000)
    assert round_trip(train_tokenizer(texts, config, "test"), texts) == texts


def test_line_ends_can_be_parts_of_pieces() -> None:
    config = TextTokenizerConfig(vocabulary_size=18)
    tokenizer = train_tokenizer(["go.\n", "stop.\n"] * 50, config, "test")
    pieces = [tokenizer.piece(number) for number in range(tokenizer.vocabulary_size)]
    assert any(piece.endswith(".␊") for piece in pieces)


def test_a_character_model_has_a_piece_for_each_character() -> None:
    config = TextTokenizerConfig(type="char", vocabulary_size=500)
    tokenizer = train_tokenizer(["abc", "b\n"], config, "test")
    assert tokenizer.vocabulary_size == 4 + len("abc\n")


def test_models_that_are_not_verbatim_still_normalise_spaces() -> None:
    config = TextTokenizerConfig(type="char", vocabulary_size=500, verbatim=False)
    tokenizer = train_tokenizer(["some words"], config, "test")
    assert round_trip(tokenizer, ["  some   words "]) == ["some words"]


def test_training_on_equal_text_gives_equal_bytes() -> None:
    config = TextTokenizerConfig(type="bpe", vocabulary_size=320, byte_fallback=True)
    models = {train_tokenizer([WORDS] * 20, config, "test").model for _ in range(2)}
    assert len(models) == 1


def test_an_impossible_vocabulary_size_is_refused() -> None:
    config = TextTokenizerConfig(type="bpe", vocabulary_size=30_000)
    with pytest.raises(TokenizerError, match=r"vocabulary_size=30000: .*too high"):
        train_tokenizer([WORDS], config, "test")
