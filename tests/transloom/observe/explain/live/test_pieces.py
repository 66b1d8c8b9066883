"""pieces.js compared with SentencePiece: equal pieces for all sentences and model types."""

import io
import random

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from support.live_model import ask

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.storage.phrasebook import phrasebook_pairs
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from transloom.observe.explain.live.packing import NotLiveError, encoded, packed_tokenizer

pytestmark = pytest.mark.long

TEXT = [text for pair in phrasebook_pairs("train")[:1500] for text in pair]
NASTY = [
    *(
        "",
        " ",
        "   ",
        "\t",
        "\n",
        "a\n",
        "\n\nb",
        " a  b ",
        "\u3000全角　ＡＢＣ",
        "▁",
        "▁▁ ▁a",
        "⁇ <unk>",
    ),
    *(
        "<s></s><pad>",
        "ﬁancée ﬃ Å Å é",
        "½ ㎏ ㌔ ﷺ",
        "\u200b\u200d\ufeff",
        "e\u0301\u0323",
        "\0a\x1fb",
    ),
    *(
        "👩‍👩‍👧 🇫🇷 🏳️‍🌈",
        "\U0010ffff\ue000",
        "שלום עולם",
        "مرحبا بالعالم",
        "नमस्ते",
        "ไทย",
        "한국어 ㅎㅏㄴ",
    ),
    *(
        "␛␊␛n▅ ␛ a\nb",
        "a\r\nb\rc\x85d\u2028e\u2029f",
        "\xa0a\xa0\xa0b\xad",
        "<2de> <x> <x><xy>",
        "aaaaaaaa",
    ),
    *(
        "je suis" * 60,
        "x" * 300,
        "l’été — « où ? »",
        "…‥․ ①②③ ℌ ﾊﾝｶｸ",
        "\u0130İıſß",
        "\ud7a3\u1100\u1161\u11a8",
    ),
]
# Alphabets of random sentences, used together with the phrase book and all Unicode planes.
ALPHABETS = [
    "abcdefghij éèêçàùœæ",
    "▁ \t\u3000\xa0\u200b  ",
    "ＡｂＣ①㎏ﬁ½Åſßİı",
    "عربىאבג한국日本語ไทย",
    "".join(map(chr, range(0x1F300, 0x1F340))),
    "e\u0301\u0323o\u0308\u0345\u093c\u1161\u11a8",
    "<s>unk/pad2dexy␛␊n▅\n",
]


def random_sentences(count, seed):
    draw = random.Random(seed)

    def part():
        kind = draw.randrange(4)
        if kind == 0:
            return draw.choice(TEXT)[: draw.randrange(1, 40)]
        if kind == 1:
            points = (draw.randrange(1, 0x110000) for _ in range(draw.randrange(1, 6)))
            return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)
        alphabet = draw.choice(ALPHABETS)
        return "".join(draw.choice(alphabet) for _ in range(draw.randrange(1, 9)))

    return ["".join(part() for _ in range(draw.randrange(1, 5))) for _ in range(count)]


def packed_of(tokenizer):
    """Return a packed model that consists of a tokenizer only."""
    described, charsmap = packed_tokenizer(tokenizer)
    return {
        **{"config": {}, "decoding": {}, "vocabulary": {}, "weights": [], "floats": 0},
        "tokenizers": [described],
        **encoded(charsmap),
    }


def trained(**settings):
    """Train a tokenizer like `transloom prepare`, with a tag."""
    config = TokenizerConfig(**{"vocabulary_size": 400, "character_coverage": 0.995, **settings})
    return SentencePieceTokenizer.train(TEXT, config, "a model", ["<2de>"])


def given(unused=0, **settings):
    """Train a tokenizer with other settings than ours, and mark some pieces as unused."""
    model = io.BytesIO()
    special = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, minloglevel=2, num_threads=1,
        **{"vocab_size": 400, **special, **settings},
    )  # fmt: skip
    proto = ModelProto()
    proto.ParseFromString(model.getvalue())
    normal = [
        piece for piece in proto.pieces if piece.type == piece.NORMAL and len(piece.piece) > 2
    ]
    for piece in normal[:unused]:
        piece.type = piece.UNUSED
    return SentencePieceTokenizer(proto.SerializeToString(), "a given model")


USER = ["<x>", "<xy>", "e f", "été", "▁je"]
MODELS = {
    "bpe": lambda: trained(type="bpe"),
    "unigram": lambda: trained(type="unigram"),
    "char": lambda: trained(type="char"),
    "bpe with bytes": lambda: trained(type="bpe", byte_fallback=True, vocabulary_size=600),
    "unigram with bytes": lambda: trained(type="unigram", byte_fallback=True, vocabulary_size=600),
    "verbatim bpe": lambda: trained(
        type="bpe", byte_fallback=True, verbatim=True, vocabulary_size=600
    ),
    "verbatim unigram": lambda: trained(type="unigram", verbatim=True),
    "bpe, user-defined and unused": lambda: given(40, model_type="bpe", user_defined_symbols=USER),
    "unigram, user-defined and unused": lambda: given(
        40, model_type="unigram", user_defined_symbols=USER
    ),
    "unigram, folded case, space behind": lambda: given(
        model_type="unigram",
        normalization_rule_name="nfkc_cf",
        treat_whitespace_as_suffix=True,
        unk_surface="?",
    ),
    "bpe, spaces kept": lambda: given(
        model_type="bpe", remove_extra_whitespaces=False, normalization_rule_name="nmt_nfkc"
    ),
    "char, no dummy prefix": lambda: given(
        model_type="char", hard_vocab_limit=False, add_dummy_prefix=False, user_defined_symbols=USER
    ),
}


@pytest.fixture(scope="module")
def sentences():
    """Return 4,000 sentences: of the phrase book, difficult and random ones."""
    return [*TEXT[:1000], *NASTY, *random_sentences(3000, seed=1)]


@pytest.mark.parametrize("kind", MODELS)
def test_the_page_splits_and_joins_pieces_like_sentencepiece(kind, sentences, tmp_path):
    tokenizer = MODELS[kind]()
    draw = random.Random(2)
    size = tokenizer.vocabulary_size
    spelt = [[draw.randrange(size) for _ in range(draw.randrange(12))] for _ in range(2000)]
    question = {"side": "source", "texts": sentences}
    found, texts = ask(
        packed_of(tokenizer),
        tmp_path,
        ("encode", question),
        ("decode", {"side": "source", "ids": spelt}),
    )
    expected = [ids.tolist() for ids in tokenizer.encode(sentences)]
    wrong = [
        (sentence, [piece["id"] for piece in pieces], ids)
        for sentence, pieces, ids in zip(sentences, found, expected, strict=True)
        if [piece["id"] for piece in pieces] != ids
    ]
    assert not wrong, (len(wrong), wrong[:3])
    other = [
        pair
        for pair in zip(spelt, texts, tokenizer.decode(spelt), strict=True)
        if pair[1] != pair[2]
    ]
    assert not other, (len(other), other[:3])


@pytest.mark.parametrize("kind", ["bpe", "unigram with bytes", "bpe, spaces kept"])
def test_the_characters_of_each_piece_are_those_of_sentencepiece(kind, sentences, tmp_path):
    tokenizer = MODELS[kind]()
    (found,) = ask(
        packed_of(tokenizer), tmp_path, ("encode", {"side": "source", "texts": sentences})
    )
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(tokenizer.model)
    for sentence, pieces in zip(sentences, found, strict=True):
        utf16 = sentence.encode("utf-16-le")
        told = [utf16[2 * p["start"] : 2 * p["end"]].decode("utf-16-le") for p in pieces]
        expected = processor.encode(sentence, return_type="proto").pieces
        assert told == [piece.surface for piece in expected], sentence


def test_pieces_of_a_verbatim_model_refer_to_the_unescaped_text(tmp_path):
    tokenizer = MODELS["verbatim bpe"]()
    texts = ["a\nb▁c ␛\0d\n", "␊▅", "œ\n\n日"]
    (found,) = ask(packed_of(tokenizer), tmp_path, ("encode", {"side": "source", "texts": texts}))
    for text, pieces in zip(texts, found, strict=True):
        assert "".join(text[piece["start"] : piece["end"]] for piece in pieces) == text


def test_packing_refuses_a_word_tokenizer():
    with pytest.raises(NotLiveError, match="of the type word"):
        packed_tokenizer(given(model_type="word", hard_vocab_limit=False))
