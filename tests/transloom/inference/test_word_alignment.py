"""Words of pieces, compared with examples by hand and with SentencePiece's offsets."""

import pytest

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers, train_tokenizer
from transloom.inference.word_alignment import fold, word_numbers, words_read, words_written

TAG = "<2de>"
UNKNOWN = "☃"
SENTENCES = [
    "notre tante sera aussi heureuse que Sophie",
    "est-ce qu'il y a un sac rose ?",
    f"la {UNKNOWN}{UNKNOWN} maison{UNKNOWN} x{UNKNOWN}y {UNKNOWN}",
    "no-break\u00a0space, and  wide\u3000ones ",
    "zyxwvut",
    "",
]


@pytest.fixture(scope="module")
def tokenizer(phrasebook) -> Tokenizer:
    store = open_store(phrasebook)
    return load_tokenizers(store, Manifest.load(store))["src"]


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["▁a", "▁b", "c", "▁d"], [(0,), (1,), (1,), (2,)]),
        (["a", "b", "▁c"], [(0,), (0,), (1,)]),  # the model has no dummy prefix
        (["a▁", "b", "c▁"], [(0,), (1,), (1,)]),  # spaces end their pieces
        (["▁", "a", "▁", "b"], [(0,), (0,), (1,), (1,)]),
        (["▁", "▁a", "▁", "▁b"], [(0,), (0,), (1,), (1,)]),
        (["▁New▁York", "▁is"], [(0, 1), (2,)]),  # one piece has two words
        (["", "▁a", "▁", ""], [(), (0,), (), ()]),
        (["▁"], [()]),
        ([], []),
    ],
)
def test_pieces_are_assigned_to_words_that_begin_at_spaces(pieces, words):
    assert word_numbers(pieces) == words


def by_offsets(text, spans):
    """Return the numbers of the words that overlap each span of bytes of the text."""
    numbers, newest = [], -1
    for before, character in zip(" " + text, text, strict=False):
        newest += before.isspace() and not character.isspace()
        number = None if character.isspace() else newest
        numbers += [number] * len(character.encode())
    reached = [numbers[span.begin : span.end] for span in spans]
    return [tuple(dict.fromkeys(n for n in found if n is not None)) for found in reached]


def without_lone_spaces(words, pieces):
    """Return the words with () for pieces ▁, whose span is a space and in no word."""
    return [() if piece == "▁" else found for found, piece in zip(words, pieces, strict=True)]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_words_read_equals_the_words_by_offsets_in_the_sentence(tokenizer, sentence):
    spans = tokenizer._processor.encode(sentence, return_type="proto").pieces
    ids = [span.id for span in spans]
    pieces = [span.piece for span in spans]
    found = words_read(tokenizer, ids)
    expected = by_offsets(sentence, spans)
    assert without_lone_spaces(found, pieces) == without_lone_spaces(expected, pieces)
    assert {n for numbers in found for n in numbers} == set(range(len(sentence.split())))


@pytest.mark.parametrize("sentence", SENTENCES)
def test_words_written_equals_the_words_by_offsets_in_the_text(tokenizer, sentence):
    ids = tokenizer.encode([sentence])[0].tolist()
    (text,) = tokenizer.decode([ids])
    proto = tokenizer._processor.decode(ids, return_type="proto")
    assert proto.text == text
    pieces = [span.piece for span in proto.pieces]
    found = words_written(tokenizer, ids)
    expected = by_offsets(text, proto.pieces)
    assert without_lone_spaces(found, pieces) == without_lone_spaces(expected, pieces)
    assert {n for numbers in found for n in numbers} == set(range(len(text.split())))


def test_tags_and_eos_belong_to_no_word():
    config = TokenizerConfig(type="bpe", vocabulary_size=18)
    tokenizer = train_tokenizer(["ab cd ab cd abcd"] * 9, config, "tiny.model", [TAG])
    tag, eos = tokenizer.tag_id(TAG), tokenizer.eos_id
    ids = tokenizer.encode_field(["ab cd"], TAG).ids.tolist()
    assert (ids[0], ids[-1]) == (tag, eos)
    read = words_read(tokenizer, ids)
    assert (read[0], read[-1]) == ((), ())
    assert read[1:-1] == words_written(tokenizer, ids)[1:-1] == words_read(tokenizer, ids[1:-1])
    assert read[1] == (0,)


def test_fold_turns_pairs_of_pieces_into_pairs_of_words():
    source = [(0,), (1,), (1,), ()]
    target = [(0,), (0,), (1,), (2,), ()]
    alignment = ((2, 0), (1, 1), (0, 2), (3, 3), (0, 4))
    assert fold(alignment, source, target) == ((0, 1), (1, 0))
    assert fold(((0, 0),), [(0, 1)], [(0,)]) == ((0, 0), (1, 0))
