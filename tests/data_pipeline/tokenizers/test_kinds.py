"""Tokenizers of kinds other than SentencePiece, and their kind in a manifest."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest

from data_pipeline.arrays import FieldArrays, Int32Array
from data_pipeline.config.data import TOKENIZERS, TokenizerConfig
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import SpecialIds, TokenizerInfo
from data_pipeline.errors import TokenizerError
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import (
    Tokenizer,
    load_existing,
    load_tokenizers,
    open_tokenizer,
    train_tokenizer,
)
from foundation.errors import ExtensionError


class Words(Tokenizer):
    """Tokenizer with a token for each word of its training text."""

    kind: ClassVar[str | None] = "words"

    def __init__(self, model: bytes, name: str) -> None:
        self.model, self.name = model, name
        self.special_ids = SpecialIds(pad=0, unk=1, bos=2, eos=3)
        self._words = model.decode().split()

    @classmethod
    def train(
        cls, texts: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
    ) -> Self:
        words = sorted({word for text in texts for word in text.split()})
        return cls(" ".join([*tags, *words]).encode(), name)

    @property
    def vocabulary_size(self) -> int:
        return 4 + len(self._words)

    def encode(self, sentences: list[str]) -> list[Int32Array]:
        known = {word: number for number, word in enumerate(self._words, 4)}
        return [
            np.array([known.get(word, 1) for word in text.split()], dtype=np.int32)
            for text in sentences
        ]

    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        encoded = [np.append(ids, np.int32(3)) for ids in self.encode(sentences)]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int32)
        return FieldArrays(np.concatenate(encoded), lengths)

    def tag_id(self, tag: str) -> int:
        return 4 + self._words.index(tag)

    def decode(self, ids: list[list[int]]) -> list[str]:
        return [" ".join(self._words[i - 4] for i in part if i >= 4) for part in ids]

    def piece(self, number: int) -> str:
        return self._words[number - 4]


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TOKENIZERS, "_entries", {**TOKENIZERS._entries, "words": Words})


def test_a_registered_tokenizer_can_be_trained_opened_and_given_as_a_file(tmp_path: Path) -> None:
    config = TokenizerConfig(type="words", vocabulary_size=6)
    trained = train_tokenizer(["b a", "a"], config, "test")
    assert isinstance(trained, Words)
    opened = open_tokenizer(trained.model, "test", trained.kind)
    assert opened.decode([ids.tolist() for ids in opened.encode(["a b a"])]) == ["a b a"]
    assert (opened.pad_id, opened.unk_id, opened.bos_id, opened.eos_id) == (0, 1, 2, 3)
    (tmp_path / "model").write_bytes(b"a b")
    sha256 = "c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65"
    given = config.model_copy(update={"model": str(tmp_path / "model"), "model_sha256": sha256})
    assert load_existing(given).vocabulary_size == 6
    missing = config.model_copy(update={"model": "/no/such", "model_sha256": sha256})
    with pytest.raises(TokenizerError, match="The words model /no/such cannot be read"):
        load_existing(missing)


def test_sampling_by_an_unsupported_kind_is_refused() -> None:
    tokenizer = Words(b"a b", "test")
    with pytest.raises(TokenizerError, match="kind words, which does not support subword sampling"):
        tokenizer.sample_field(["a"], np.zeros(1, dtype=np.uint64), 0.1)


def test_the_manifest_has_a_kind_only_for_tokenizers_of_other_kinds(manifest: Manifest) -> None:
    assert b'"kind"' not in manifest.to_bytes()
    info = next(iter(manifest.tokenizers.values()))
    named = TokenizerInfo(**{**info.model_dump(), "kind": "words"})
    assert named.model_dump(mode="json")["kind"] == "words"


def test_an_unknown_kind_names_the_extension_as_remedy(dataset: Path, manifest: Manifest) -> None:
    infos = {
        field: info.model_copy(update={"kind": "lost"})
        for field, info in manifest.tokenizers.items()
    }
    other = manifest.model_copy(update={"tokenizers": infos})
    with pytest.raises(ExtensionError, match=r"'lost'.*list the module that registers 'lost'"):
        load_tokenizers(open_store(dataset), other)
