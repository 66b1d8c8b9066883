"""Trained, existing and wrong SentencePiece models."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from data_pipeline.config import TokenizerConfig
from data_pipeline.errors import TokenizerError
from data_pipeline.manifest import Manifest
from data_pipeline.tokenizer import Tokenizer, load_existing, load_tokenizers, train_tokenizer


@pytest.fixture(scope="module")
def text(sentences: Callable[[int, int], list[str]]) -> list[str]:
    return sentences(300, 7)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def trained(request: pytest.FixtureRequest, text: list[str]) -> Tokenizer:
    config = TokenizerConfig(type=request.param, vocabulary_size=110)
    tokenizer = train_tokenizer(text, config, "test")
    assert train_tokenizer(text, config, "test").model == tokenizer.model
    return tokenizer


def test_special_ids_and_size(trained: Tokenizer) -> None:
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


def test_a_field_is_flat_with_eos(trained: Tokenizer) -> None:
    lines = ["ba de", "", "fi"]
    field = trained.encode_field(lines)
    expected = [[*ids.tolist(), trained.eos_id] for ids in trained.encode(lines)]
    assert field.ids.tolist() == [number for ids in expected for number in ids]
    assert field.lengths.tolist() == [len(ids) for ids in expected]


@pytest.mark.parametrize(
    ("size", "message"),
    [(30_000, "vocabulary_size=30000: .*too high.* <= "), (6, "vocabulary_size=6: .*smaller than")],
)
def test_vocabulary_that_cannot_be(text: list[str], size: int, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        train_tokenizer(text, TokenizerConfig(vocabulary_size=size), "tokenizer.model")


def existing(path: Path, model: bytes, size: int) -> TokenizerConfig:
    path.write_bytes(model)
    sha256 = hashlib.sha256(model).hexdigest()
    return TokenizerConfig(vocabulary_size=size, model=str(path), model_sha256=sha256)


def test_existing_model_is_used_as_it_is(tmp_path: Path, text: list[str]) -> None:
    trained = train_tokenizer(text, TokenizerConfig(vocabulary_size=100), "test")
    config = existing(tmp_path / "m.model", trained.model, 100)
    assert load_existing(config).model == trained.model

    with pytest.raises(TokenizerError, match=r"has 100 pieces, and .*size is 99"):
        load_existing(config.model_copy(update={"vocabulary_size": 99}))
    with pytest.raises(TokenizerError, match=f"model_sha256 is {'0' * 64}"):
        load_existing(config.model_copy(update={"model_sha256": "0" * 64}))
    (tmp_path / "m.model").unlink()
    with pytest.raises(TokenizerError, match=r"m\.model cannot be read \(No such file"):
        load_existing(config)


def test_existing_model_without_pad_is_refused(tmp_path: Path, text: list[str]) -> None:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=100, minloglevel=2
    )
    with pytest.raises(TokenizerError, match=r"'pad': -1.*pad is missing.*--pad_id=0"):
        load_existing(existing(tmp_path / "m.model", model.getvalue(), 100))


@pytest.mark.parametrize("model", [b"", b"no model at all"])
def test_files_that_are_no_model(tmp_path: Path, model: bytes) -> None:
    with pytest.raises(TokenizerError, match=r"m\.model is not a SentencePiece model"):
        load_existing(existing(tmp_path / "m.model", model, 100))


def test_joint_tokenizer_of_a_dataset_is_one_object(dataset: Path, manifest: Manifest) -> None:
    tokenizers = load_tokenizers(dataset, manifest)
    assert tokenizers["src"] is tokenizers["tgt"]
    assert tokenizers["src"].special_ids == manifest.special_ids
