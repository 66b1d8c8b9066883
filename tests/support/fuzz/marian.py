"""Fuzzing targets: Marian models in Hugging Face's layout."""

import base64
import io
import json
import pickle
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch

from data_pipeline.errors import TokenizerError
from data_pipeline.tokenizers.marian import MarianTokenizer, pack
from model.config.transformer import ModelConfig
from model.errors import ModelError
from model.hugging_face.files import CONFIG_FILE, read_json
from model.hugging_face.marian import from_marian, to_marian
from model.hugging_face.pytorch_file import most_bytes, read_pytorch
from model.networks.transformer import Transformer, Vocabulary
from support.fuzz.documents import json_maker
from support.fuzz.mutation import mutate_bytes, mutate_tree, with_depth
from support.fuzz.target import Target
from support.marian import write_tokenizer

SENTENCES = ["a cat sees the dog", "", "\u2581 x \0 \ud7ff </s> >>fra<<", "é" * 500]
PIECES = 40


def marian_targets() -> list[Target]:
    """Return targets: packed tokenizers, `vocab.json`, `config.json`, `pytorch_model.bin`."""
    from_marian(*_network())  # torch imports more of its modules when the first network is created
    return [
        Target(
            "marian-tokenizer",
            "packed Marian tokenizer: values, keys, lines, bytes, SentencePiece models within",
            _make_packed,
            _read_packed,
            (TokenizerError,),
        ),
        Target(
            "marian-vocabulary",
            "`vocab.json` of a Marian model: values, keys, lines, bytes",
            _make_vocabulary,
            _read_vocabulary,
            (TokenizerError,),
        ),
        Target(
            "marian-config",
            "`config.json` of a Marian model: values, keys",
            _make_config,
            _read_config,
            (ModelError,),
        ),
        Target(
            "marian-pytorch",
            "`pytorch_model.bin`, as an archive and as a plain pickle: bytes",
            _make_pytorch,
            _read_pytorch,
            (ModelError,),
        ),
    ]


@cache
def _tokenizer() -> tuple[bytes, dict[str, int]]:
    """Return a SentencePiece model with few pieces, and the ids of all pieces."""
    lines = ["a cat sees the dog", "the dog sees nobody"] * 5
    with TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), (lines, lines), PIECES, [">>fra<<"])
        model = Path(folder, "source.spm").read_bytes()
        return model, json.loads(Path(folder, "vocab.json").read_bytes())


@cache
def _packed() -> dict[str, Any]:
    model, vocabulary = _tokenizer()
    encoded = base64.b64encode(model).decode()
    return {
        "format": "transloom-marian-tokenizer/1",
        "source": encoded,
        "target": encoded,
        "pieces": list(vocabulary),
    }


def _make_packed(random: Random) -> bytes:
    values = _packed()
    if random.random() < 0.3:
        model, _ = _tokenizer()
        damaged = mutate_bytes(random, model, model)
        values = values | {"source": base64.b64encode(damaged).decode()}
    return json_maker(values)(random)


def _make_vocabulary(random: Random) -> bytes:
    _, vocabulary = _tokenizer()
    return json_maker(vocabulary)(random)


def _text(values: Any) -> bytes:
    return with_depth(json.dumps(values, indent=1)).encode()


def _read_packed(data: bytes, folder: Path) -> None:
    source = MarianTokenizer(data, "tokenizer.model")
    for tokenizer in (source, source.of_field(1)):
        field = tokenizer.encode_field(SENTENCES)
        assert len(field.lengths) == len(SENTENCES)
        assert int(field.lengths.sum()) == len(field.ids)
        assert field.ids.min(initial=0) >= 0
        assert field.ids.max(initial=0) < tokenizer.vocabulary_size
        assert len(tokenizer.decode([field.ids.tolist()])) == 1
        tokenizer.piece(tokenizer.vocabulary_size - 1)
        for tag in tokenizer.tags:
            assert tokenizer.encode_field(SENTENCES[:1], tag).ids[0] == tokenizer.tag_id(tag)


def _read_vocabulary(data: bytes, folder: Path) -> None:
    (folder / "vocab.json").write_bytes(data)
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(_tokenizer()[0])
    _read_packed(pack(folder), folder)


@cache
def _network() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = ModelConfig(
        encoder_layers=1,
        decoder_layers=1,
        width=8,
        feed_forward_width=8,
        heads=2,
        activation="silu",
        output_bias=True,
        decoder_start="pad",
    )
    torch.manual_seed(1)
    return to_marian(Transformer(config, Vocabulary(20, 20, 19, 19, 0)))


def _make_config(random: Random) -> bytes:
    return _text(mutate_tree(random, _network()[0]) if random.random() < 0.9 else _network()[0])


def _read_config(data: bytes, folder: Path) -> None:
    (folder / CONFIG_FILE).write_bytes(data)
    config = read_json(folder / CONFIG_FILE)
    most_bytes(config)
    from_marian(config, _network()[1])


@cache
def _files() -> list[bytes]:
    files = []
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(_network()[1], file, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return [*files, pickle.dumps({"a": print})]


def _make_pytorch(random: Random) -> bytes:
    data = random.choice(_files())
    return mutate_bytes(random, data, random.choice(_files())) if random.random() < 0.9 else data


def _read_pytorch(data: bytes, folder: Path) -> None:
    path = folder / "pytorch_model.bin"
    path.write_bytes(data)
    config, _ = _network()
    for tensor in read_pytorch(path, most_bytes(config)).values():
        tensor.sum()
