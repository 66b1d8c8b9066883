"""Marian's tokenizers, compared with those of transformers on real and on difficult text."""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.files.json_files import edited_json
from support.marian import write_tokenizer
from transformers import MarianTokenizer as Theirs

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.errors import TokenizerError
from data_pipeline.tokenizers.marian import MarianTokenizer, pack, unpack
from data_pipeline.tokenizers.tokenizer import load_existing, open_tokenizer

TAGS = (">>fra<<", ">>por<<")
NASTY = [
    "",
    " ",
    "  two   spaces  ",
    "\t tab",
    "a\nb",
    "日本語 mixed с кириллицей",
    "schöne Straße",  # characters of the other side
    "ﬁne ½ ™ …",  # characters that NFKC changes
    "“quoted” – l’été « guillemets »",  # characters that Moses would normalise
    "a\u200bb\u00a0c\u3000d",
    "▁ ▁▁ a▁b",
    "<s> s> <2de> >> <<",
    "👩‍👩‍👧‍👦 and 🏴‍☠️",
    "e\u0301 é",
    "\u202eright to left",
    "x" * 600,
    "ÄÖÜäöüß" * 20,
    "1,234.56 -- 7e-9",
]


@pytest.fixture(scope="module")
def lines(multi30k: Path) -> tuple[list[str], list[str]]:
    english, german = (
        (multi30k / f"train.{language}").read_text(encoding="utf-8").splitlines()
        for language in ("en", "de")
    )
    return english, german


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def folder(
    request: pytest.FixtureRequest,
    lines: tuple[list[str], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "opus"
    texts = lines[0][:3000], lines[1][:3000]
    write_tokenizer(path, texts, 800, TAGS, request.param)
    return path


@pytest.fixture(scope="module")
def sides(folder: Path) -> tuple[MarianTokenizer, MarianTokenizer]:
    source = MarianTokenizer.load(folder)
    return source, source.of_field(1)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return Theirs.from_pretrained(folder)


def of_theirs(theirs: Any, texts: list[str], side: int) -> list[list[int]]:
    encoded = theirs(text_target=texts) if side else theirs(texts)
    found: list[list[int]] = encoded["input_ids"]
    return found


def of_ours(tokenizer: MarianTokenizer, texts: list[str], tag: str | None = None) -> Any:
    field = tokenizer.encode_field(texts, tag)
    return [part.tolist() for part in np.split(field.ids, np.cumsum(field.lengths)[:-1])]


@pytest.mark.matrix
@pytest.mark.parametrize("side", [0, 1])
def test_ids_of_real_text_equal_those_of_transformers(
    sides: tuple[MarianTokenizer, MarianTokenizer],
    theirs: Any,
    lines: tuple[list[str], list[str]],
    side: int,
) -> None:
    """Each side reads both languages, so that some characters are unknown to its model."""
    texts = [*lines[side][-2000:], *lines[1 - side][-500:]]
    ids = of_ours(sides[side], texts)
    assert ids == of_theirs(theirs, texts, side)
    assert sides[side].unk_id in {number for part in ids for number in part}
    assert [part.tolist() for part in sides[side].encode(texts[:5])] == [p[:-1] for p in ids[:5]]
    known = [part for part in ids if sides[side].unk_id not in part]
    assert len(known) > 1500
    assert sides[side].decode(known) == theirs.batch_decode(known, skip_special_tokens=True)


@pytest.mark.parametrize("side", [0, 1])
def test_ids_of_difficult_text_equal_those_of_transformers(
    sides: tuple[MarianTokenizer, MarianTokenizer], theirs: Any, side: int
) -> None:
    draw = random.Random(5)
    alphabet = "".join(NASTY) + "abc äß"
    texts = [*NASTY, *("".join(draw.choices(alphabet, k=draw.randint(1, 60))) for _ in range(500))]
    texts = [text for text in texts if not text.startswith(">>")]
    assert of_ours(sides[side], texts) == of_theirs(theirs, texts, side)


def test_a_character_known_only_to_the_other_side_has_an_id(folder: Path) -> None:
    """The source's model lacks the character; the vocabulary has it from the target's model."""
    source = MarianTokenizer.load(folder)
    packed = unpack(source.model, "test")
    pieces = (*packed.pieces[:-1], "ж", packed.pieces[-1])
    other = json.loads(source.model) | {"pieces": pieces}
    with_it = MarianTokenizer(json.dumps(other).encode(), "test")
    ids = with_it.encode(["a ж b"])[0].tolist()
    assert pieces.index("ж") in ids
    assert source.unk_id in source.encode(["a ж b"])[0].tolist()


def test_special_ids_are_those_of_the_vocabulary(
    sides: tuple[MarianTokenizer, MarianTokenizer], theirs: Any
) -> None:
    for tokenizer in sides:
        assert (tokenizer.eos_id, tokenizer.unk_id) == (0, 1)
        assert tokenizer.pad_id == tokenizer.bos_id == tokenizer.vocabulary_size - 1
        assert tokenizer.vocabulary_size == len(theirs)
        assert tokenizer.piece(tokenizer.pad_id) == "<pad>"


def test_a_tag_is_the_first_token_and_cannot_be_spelt_in_text(
    sides: tuple[MarianTokenizer, MarianTokenizer], theirs: Any
) -> None:
    source = sides[0]
    ids = of_ours(source, ["A dog runs.", ""], ">>fra<<")
    assert ids == of_theirs(theirs, [">>fra<<A dog runs.", ">>fra<<"], 0)
    assert source.decode(ids) == ["A dog runs.", ""]
    spelt = of_ours(source, [">>fra<< a", "a </s> b", "<pad>", "a <unk> b"])
    special = {source.tag_id(tag) for tag in TAGS} | {source.pad_id}
    assert not special & {number for part in spelt for number in part}
    assert all(part.count(source.eos_id) == 1 and part[-1] == source.eos_id for part in spelt)
    with pytest.raises(TokenizerError, match=r"tag >>deu<< is not one of the 2 tags .*>>fra<<"):
        source.tag_id(">>deu<<")
    with pytest.raises(TokenizerError, match="tag a is not one"):
        source.tag_id("a")


def test_unknown_pieces_are_decoded_visibly(sides: tuple[MarianTokenizer, MarianTokenizer]) -> None:
    source = sides[0]
    first, *_ = source.encode(["dog"])[0].tolist()
    assert "⁇" in source.decode([[first, source.unk_id, source.eos_id, source.pad_id]])[0]


def test_a_packed_file_contains_the_whole_folder_in_repeatable_bytes(
    folder: Path, tmp_path: Path
) -> None:
    packed = pack(folder)
    assert packed == pack(folder)
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    shuffled = list(json.loads((folder / "vocab.json").read_text()).items())
    random.Random(1).shuffle(shuffled)
    (tmp_path / "vocab.json").write_text(json.dumps(dict(shuffled), indent=3))
    assert pack(tmp_path) == packed
    opened = open_tokenizer(packed, "test", "marian")
    assert opened.decode([ids.tolist() for ids in opened.encode(["A dog runs."])]) == [
        "A dog runs."
    ]
    config = TokenizerConfig(
        type="marian",
        vocabulary_size=opened.vocabulary_size,
        model=str(folder),
        model_sha256=hashlib.sha256(packed).hexdigest(),
    )
    assert load_existing(config).model == packed
    (tmp_path / "packed").write_bytes(packed)
    given = config.model_copy(update={"model": str(tmp_path / "packed")})
    assert load_existing(given).model == packed


def test_a_vocabulary_of_realistic_size_can_be_read(folder: Path, tmp_path: Path) -> None:
    """opus-mt's vocabularies have 58,000 to 65,000 pieces, more keys than other JSON files may
    have.
    """
    for name in ("source.spm", "target.spm"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    pieces = ["</s>", "<unk>", *map("p{}".format, range(65_000)), "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({p: n for n, p in enumerate(pieces)}))
    assert MarianTokenizer.load(tmp_path).vocabulary_size == 65_003


def changed(folder: Path, copy: Path, files: dict[str, str | bytes | None]) -> Path:
    """Return a copy of the folder with other files; None removes a file."""
    copy.mkdir()
    names = {"source": "source.spm", "target": "target.spm", "vocabulary": "vocab.json"}
    for key, name in names.items():
        content = files.get(key, (folder / name).read_bytes())
        if content is not None:
            data = content.encode() if isinstance(content, str) else content
            (copy / name).write_bytes(data)
    return copy


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"target": None}, r"target\.spm cannot be read .*source\.spm, target\.spm, vocab\.json"),
        ({"source": b"\x80\x04pickle"}, r"source\.spm of .*is not a SentencePiece model"),
        ({"vocabulary": "[]"}, r"vocab\.json is not a vocabulary: expected a JSON object"),
        ({"vocabulary": '{"a": 0, "a": 1}'}, r"'a' appears twice"),
        ({"vocabulary": '{"a": 0, "b": 0}'}, r"gives 'b' the id 0, expected a different number"),
        ({"vocabulary": '{"a": 7}'}, r"gives 'a' the id 7, expected a different number below 1"),
        ({"vocabulary": '{"a": true}'}, r"gives 'a' the id True"),
        ({"vocabulary": '{"a": 0}'}, r"has 1 piece, but </s>, <unk>, <pad> is not one of them"),
    ],
)
def test_problems_of_a_folder_are_reported(
    folder: Path, tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    with pytest.raises(TokenizerError, match=message):
        MarianTokenizer.load(changed(folder, tmp_path / "other", files))


def test_a_second_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other", {})
    (other / "target_vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"target_vocab\.json, a separate vocabulary"):
        MarianTokenizer.load(other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a Marian tokenizer"),
        (b'{"format": "other"}', "format: "),
        (b'{"source": "", "target": "", "pieces": [], "more": 1}', "more: Extra inputs"),
    ],
)
def test_a_damaged_packed_file_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        open_tokenizer(content, "test", "marian")


def test_a_marian_tokenizer_without_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"type is marian and model is not set"):
        TokenizerConfig(type="marian", vocabulary_size=100)


def test_the_first_token_of_the_config_is_bos(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = MarianTokenizer.load(copy)
    with edited_json(copy / "vocab.json") as ids:
        ids["<s>"] = len(ids)
    config = {"pad_token_id": ids["<pad>"], "decoder_start_token_id": ids["<s>"]}
    (copy / "config.json").write_text(json.dumps(config))
    found = MarianTokenizer.load(copy)
    assert found.special_ids == before.special_ids.model_copy(update={"bos": ids["<s>"]})
    assert MarianTokenizer(found.model, "packed").special_ids == found.special_ids
    assert ids["<s>"] not in found.encode(["<s> a <s>"])[0]
    assert found.decode([[found.bos_id, *found.encode(["ab"])[0]]]) == found.decode(
        [found.encode(["ab"])[0].tolist()]
    )


@pytest.mark.parametrize("start", [None, "2", 10**9, -1, True])
def test_without_a_valid_first_token_bos_is_padding(
    folder: Path, tmp_path: Path, start: Any
) -> None:
    """The bytes equal those without a config, so datasets keep their identity."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "config.json").write_text(json.dumps({"decoder_start_token_id": start}))
    assert pack(copy) == pack(folder)
