"""SentencePiece models: trained, existing and invalid; tags; and sampled fields."""

import hashlib
import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from support.command import run_python

from data_pipeline.arrays import UInt64Array
from data_pipeline.config.data import TokenizerConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import DatasetFileError, TokenizerError
from data_pipeline.random_keys import splitmix64
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import (
    Tokenizer,
    load_existing,
    load_tokenizers,
    train_tokenizer,
)

TAGS = ("<2de>", "<bt>")


@pytest.fixture(scope="module")
def text(sentences: Callable[[int, int], list[str]]) -> list[str]:
    return sentences(300, 7)


@pytest.fixture(scope="module")
def bpe(text: list[str]) -> Tokenizer:
    config = TokenizerConfig(type="bpe", vocabulary_size=110)
    return train_tokenizer(text, config, "test", TAGS)


@pytest.fixture(scope="module")
def unigram(text: list[str]) -> Tokenizer:
    config = TokenizerConfig(type="unigram", vocabulary_size=110)
    return train_tokenizer(text, config, "test", TAGS)


@pytest.fixture(params=["bpe", "unigram"])
def trained(request: pytest.FixtureRequest) -> Tokenizer:
    tokenizer = request.getfixturevalue(request.param)
    assert isinstance(tokenizer, Tokenizer)
    return tokenizer


def rows(ids: list[int], lengths: list[int]) -> list[list[int]]:
    numbers = iter(ids)
    return [[next(numbers) for _ in range(length)] for length in lengths]


def sample(
    tokenizer: Tokenizer, lines: list[str], seeds: UInt64Array, alpha: float
) -> list[list[int]]:
    field = tokenizer.sample_field(lines, seeds, alpha)
    return rows(field.ids.tolist(), field.lengths.tolist())


def foreign_model(text: list[str], **settings: object) -> Tokenizer:
    model = io.BytesIO()
    defaults = {"vocab_size": 110, "pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **defaults | settings,
    )
    return SentencePieceTokenizer(model.getvalue(), "m.model")


def test_a_trained_model_has_the_special_ids_and_the_requested_size(trained: Tokenizer) -> None:
    special = (trained.pad_id, trained.unk_id, trained.bos_id, trained.eos_id)
    assert special == (0, 1, 2, 3)
    assert trained.vocabulary_size == 110
    assert [trained.piece(number) for number in (2, 3)] == ["<s>", "</s>"]


def test_encoding_equals_sentencepiece_and_decodes_back(
    trained: Tokenizer, text: list[str]
) -> None:
    reference = SentencePieceProcessor(model_proto=trained.model)
    encoded = trained.encode(text[:20])
    assert [ids.tolist() for ids in encoded] == [reference.encode(line) for line in text[:20]]
    assert all(ids.dtype == np.int32 for ids in encoded)
    assert trained.decode([ids.tolist() for ids in encoded]) == text[:20]
    assert trained.decode([]) == []


@pytest.mark.parametrize("tag", [None, *TAGS])
def test_a_flat_field_has_eos_after_each_sequence(trained: Tokenizer, tag: str | None) -> None:
    lines = ["ba de", "", "fi"]
    before = [] if tag is None else [trained.tag_id(tag)]
    expected = [[*before, *ids.tolist(), trained.eos_id] for ids in trained.encode(lines)]
    for field in (
        trained.encode_field(lines, tag),
        trained.sample_field(lines, splitmix64(0, 3), 1.0, tag),
    ):
        assert field.ids.dtype == field.lengths.dtype == np.int32
        sampled = rows(field.ids.tolist(), field.lengths.tolist())
        assert [ids[: len(before)] for ids in sampled] == [before] * 3
        assert trained.decode(sampled) == lines
    field = trained.encode_field(lines, tag)
    assert field.ids.tolist() == [number for ids in expected for number in ids]
    assert field.lengths.tolist() == [len(ids) for ids in expected]
    assert trained.encode_field([], tag).lengths.tolist() == []


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_again_gives_the_same_model(
    request: pytest.FixtureRequest, text: list[str], kind: Literal["bpe", "unigram"]
) -> None:
    config = TokenizerConfig(type=kind, vocabulary_size=110)
    again = train_tokenizer(iter(text), config, "again", (*TAGS, "<bt>"))
    assert again.model == request.getfixturevalue(kind).model


def test_many_sentences_are_encoded_on_one_thread(trained: Tokenizer, text: list[str]) -> None:
    done = threading.Event()

    def threads() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    def most_threads() -> int:
        most = threads()
        while not done.is_set():
            most = max(most, threads())
        return most

    with ThreadPoolExecutor(1) as pool:
        most = pool.submit(most_threads)
        before = threads()
        try:
            trained.encode_field(text * 30)
        finally:
            done.set()
    assert most.result() <= before + 1, "SentencePiece has one, while ours waits for it"


def test_tags_are_control_symbols_that_no_text_yields(trained: Tokenizer, text: list[str]) -> None:
    numbers = [trained.tag_id(tag) for tag in TAGS]
    assert numbers == [4, 5]
    config = TokenizerConfig(vocabulary_size=150)
    tagged = train_tokenizer([f"<2de> {line} x<bt>" for line in text], config, "test", TAGS)
    for tokenizer in (trained, tagged):
        encoded = tokenizer.encode(["<2de> ba", "ba<2de>de", "<bt><bt>"])
        assert not np.isin(np.concatenate(encoded), numbers).any()


def test_impossible_tags_are_refused(trained: Tokenizer, text: list[str]) -> None:
    piece = trained.piece(int(trained.encode(["ba de"])[0][-1]))
    for tag, found in (
        ("<2fr>", "its id is 1, the id of the special piece <unk>"),
        ("<pad>", "its id is 0, the id of the special piece <pad>"),
        (piece, "which sentences that contain its text would also get"),
    ):
        with pytest.raises(TokenizerError, match=f"The tag {tag} must .* of test, but .*{found}"):
            trained.encode_field(["ba"], tag)
    with pytest.raises(TokenizerError, match="The tag <s>, <unk> cannot be a piece of new, which"):
        train_tokenizer(text, TokenizerConfig(vocabulary_size=110), "new", ["<unk>", "<s>"])


def test_a_user_defined_symbol_is_refused_as_a_tag(text: list[str]) -> None:
    tokenizer = foreign_model(text, user_defined_symbols=["<2de>"])
    assert 4 in tokenizer.encode(["<2de> ba"])[0]
    with pytest.raises(TokenizerError, match=r"m\.model, .* 4, which .*--control_symbols=<2de>"):
        tokenizer.tag_id("<2de>")


def test_sampled_pieces_are_different_pieces_of_the_same_text(
    trained: Tokenizer, text: list[str]
) -> None:
    best = trained.encode_field(text)
    sampled = sample(trained, text, splitmix64(0, len(text)), 0.1)
    assert trained.decode(sampled) == text
    assert sum(map(len, sampled)) > 1.1 * len(best.ids)
    others = sample(trained, text, splitmix64(1, len(text)), 0.1)
    assert sum(a != b for a, b in zip(sampled, others, strict=True)) > 0.8 * len(text)


def test_sampling_depends_only_on_sentence_and_seed(
    trained: Tokenizer, text: list[str], tmp_path: Path
) -> None:
    seeds = splitmix64(0, len(text))
    seeds[-2:] = 0, 2**64 - 1
    together = sample(trained, text, seeds, 0.1)
    assert sample(trained, text[::-1], seeds[::-1], 0.1) == together[::-1]
    assert sample(trained, text[250:], seeds[250:], 0.1) == together[250:]

    (tmp_path / "m.model").write_bytes(trained.model)
    program = (
        "import json, pathlib, sys; import numpy as np\n"
        "from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer\n"
        "path, lines, seeds = json.loads(sys.argv[1])\n"
        "tokenizer = SentencePieceTokenizer.load(pathlib.Path(path))\n"
        "field = tokenizer.sample_field(lines, np.array(seeds, dtype=np.uint64), 0.1)\n"
        "json.dump([field.ids.tolist(), field.lengths.tolist()], sys.stdout)"
    )
    given = [str(tmp_path / "m.model"), text[100:], seeds[100:].tolist()]
    answer = run_python(program, json.dumps(given))
    assert rows(*json.loads(answer.stdout)) == together[100:]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"model_type": "char"}, "of type CHAR with 0 such"),
        ({"user_defined_symbols": ["<2de>"]}, "of type UNIGRAM with 1 such pieces <2de>"),
    ],
)
def test_sampling_from_an_unsupported_model_is_refused(
    text: list[str], settings: dict[str, object], found: str
) -> None:
    tokenizer = foreign_model(text, **settings)
    with pytest.raises(TokenizerError, match=rf"but m\.model is {found}.*alpha to 0"):
        tokenizer.sample_field(["ba"], splitmix64(0, 1), 0.1)


@pytest.mark.parametrize(
    ("size", "message"),
    [(30_000, "vocabulary_size=30000: .*too high.* <= "), (6, "vocabulary_size=6: .*smaller than")],
)
def test_an_impossible_vocabulary_size_is_refused(text: list[str], size: int, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        train_tokenizer(text, TokenizerConfig(vocabulary_size=size), "tokenizer.model")


def existing(path: Path, model: bytes, size: int) -> TokenizerConfig:
    path.write_bytes(model)
    sha256 = hashlib.sha256(model).hexdigest()
    return TokenizerConfig(vocabulary_size=size, model=str(path), model_sha256=sha256)


def test_an_existing_model_is_used_unchanged(tmp_path: Path, text: list[str]) -> None:
    trained = train_tokenizer(text, TokenizerConfig(vocabulary_size=100), "test")
    config = existing(tmp_path / "m.model", trained.model, 100)
    assert load_existing(config).model == trained.model

    with pytest.raises(TokenizerError, match=r"has 100 pieces, but .*size is 99"):
        load_existing(config.model_copy(update={"vocabulary_size": 99}))
    with pytest.raises(TokenizerError, match=f"model_sha256 is {'0' * 64}"):
        load_existing(config.model_copy(update={"model_sha256": "0" * 64}))
    (tmp_path / "m.model").unlink()
    with pytest.raises(TokenizerError, match=r"m\.model cannot be read \(No such file"):
        load_existing(config)


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({}, {"pad": 100}),  # defaults of spm_train: unk 0, bos 1, eos 2
        ({"bos_id": -1}, {"pad": 100, "bos": 101}),
        ({"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}, {"bos": 100}),  # as in T5
        ({"pad_piece": "[PAD]", "bos_id": -1, "eos_id": -1}, {"pad": 100, "bos": 101, "eos": 102}),
    ],
)
def test_special_pieces_that_a_model_lacks_are_added(
    tmp_path: Path, text: list[str], options: dict[str, Any], added: dict[str, int]
) -> None:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=100, minloglevel=2, **options
    )
    size = 100 + len(added)
    with pytest.raises(
        TokenizerError, match=f"has {size} pieces, with .*which the file lacks.*to {size}"
    ):
        load_existing(existing(tmp_path / "m.model", model.getvalue(), 100))
    tokenizer = load_existing(existing(tmp_path / "m.model", model.getvalue(), size))
    assert tokenizer.model == model.getvalue()
    special = tokenizer.special_ids.model_dump()
    assert {name: special[name] for name in added} == added
    assert len({*special.values()}) == 4
    plain = SentencePieceProcessor(model_proto=model.getvalue())
    sentence = f"{text[0]} <pad> <s>"
    field = tokenizer.encode_field([sentence])
    assert field.ids.tolist() == [*plain.encode(sentence), tokenizer.eos_id]
    assert tokenizer.decode([[*special.values(), *plain.encode(text[0])]]) == plain.decode(
        [[tokenizer.unk_id, *plain.encode(text[0])]]
    )
    assert tokenizer.piece(tokenizer.pad_id) == options.get("pad_piece", "<pad>")


def test_a_special_piece_that_text_may_contain_is_refused(tmp_path: Path, text: list[str]) -> None:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text),
        model_writer=model,
        vocab_size=100,
        user_defined_symbols="<pad>",
        minloglevel=2,
    )
    with pytest.raises(TokenizerError, match=r"'pad': -1.*text may contain the piece of pad"):
        load_existing(existing(tmp_path / "m.model", model.getvalue(), 100))


@pytest.mark.parametrize("model", [b"", b"no model at all"])
def test_a_file_that_is_not_a_model_is_refused(tmp_path: Path, model: bytes) -> None:
    with pytest.raises(TokenizerError, match=r"m\.model is not a SentencePiece model"):
        load_existing(existing(tmp_path / "m.model", model, 100))


def test_the_joint_tokenizer_of_a_dataset_is_loaded_once(dataset: Path, manifest: Manifest) -> None:
    tokenizers = load_tokenizers(open_store(dataset), manifest)
    assert tokenizers["src"] is tokenizers["tgt"]
    assert tokenizers["src"].special_ids == manifest.special_ids
    ids = manifest.special_ids.model_copy(update={"pad": 3, "eos": 0})
    with pytest.raises(DatasetFileError):
        load_tokenizers(open_store(dataset), manifest.model_copy(update={"special_ids": ids}))
