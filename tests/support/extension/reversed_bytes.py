"""Extension with a task, a reader and a tokenizer, like a package outside of the project."""

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, ClassVar, Self

import numpy as np

from data_pipeline.arrays import FieldArrays, Int32Array
from data_pipeline.batching.task import DATA_TASKS
from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.data import TOKENIZERS, TokenizerConfig
from data_pipeline.corpora.readers import READERS, Example
from data_pipeline.dataset.manifest_header import FieldInfo, SpecialIds
from data_pipeline.errors import TokenizerError
from data_pipeline.tasks.causal_lm import CausalLanguageModelData
from data_pipeline.tokenizers.tokenizer import Tokenizer

SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)


class Bytes(Tokenizer):
    """Tokenizer with a token for each byte; its model file contains a word that identifies it."""

    kind: ClassVar[str | None] = "bytes"

    def __init__(self, model: bytes, name: str) -> None:
        if model != b"bytes":
            raise TokenizerError(f"{name} is {model!r}, expected b'bytes'. Train it again.")
        self.model, self.name, self.special_ids = model, name, SPECIAL

    @classmethod
    def train(
        cls, texts: Iterable[str], config: TokenizerConfig, name: str, tags: Sequence[str] = ()
    ) -> Self:
        return cls(b"bytes", name)

    @property
    def vocabulary_size(self) -> int:
        return 4 + 256

    def encode(self, sentences: list[str]) -> list[Int32Array]:
        return [np.frombuffer(t.encode(), dtype=np.uint8).astype(np.int32) + 4 for t in sentences]

    def encode_field(self, sentences: list[str], tag: str | None = None) -> FieldArrays:
        assert tag is None, "documents have no tags"
        encoded = [np.append(ids, np.int32(SPECIAL.eos)) for ids in self.encode(sentences)]
        lengths = np.array([len(ids) for ids in encoded], dtype=np.int32)
        return FieldArrays(np.concatenate([np.empty(0, dtype=np.int32), *encoded]), lengths)

    def tag_id(self, tag: str) -> int:
        raise TokenizerError(f"{self.name} has no tags, and {tag} is asked for. Leave it out.")

    def decode(self, ids: list[list[int]]) -> list[str]:
        return [bytes(i - 4 for i in sequence if i >= 4).decode() for sequence in ids]

    def piece(self, number: int) -> str:
        return repr(bytes([number - 4])) if number >= 4 else f"<{number}>"


class ReversedData(CausalLanguageModelData):
    """Data of documents whose texts are encoded in reverse."""

    def encode(
        self, field: FieldInfo, tokenizer: Tokenizer, texts: list[str], tag: str | None
    ) -> FieldArrays:
        return super().encode(field, tokenizer, [text[::-1] for text in texts], tag)


def read_semicolons(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
    for text in stream.read().decode().split(";"):
        yield MyExample((text,), None)


class MyExample(Example):
    """Object of an extension's class that is sent to other processes."""


TOKENIZERS.register("bytes", Bytes)
READERS.register("semicolons", read_semicolons)
DATA_TASKS.register("reversed", ReversedData())
