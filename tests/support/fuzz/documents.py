"""Fuzzing targets: JSON and YAML files, tensors of checkpoints and SentencePiece models."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

from cluster.errors import RecipeError
from cluster.recipe import RECIPES, load_recipe
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.errors import DatasetError, TokenizerError
from data_pipeline.storage.store import MANIFEST_NAME, open_store
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import HEADER, read_header, sha256_of_header
from run_store.checkpoints.reader import CheckpointReader
from run_store.checkpoints.state_file import FileRecord
from run_store.errors import CheckpointError, CheckpointFormatError
from run_store.folder import RunFolder
from run_store.record.recorded_status import LAST_BYTES, lasting_status, recorded_status
from run_store.record.run_status import read_status, run_status_of
from support.fuzz.mutation import mutate_bytes, mutate_lines, mutate_tree, with_depth
from support.fuzz.target import Target
from trainer.recipe import identity_of
from transloom.observe.terminal.run_status_text import status_text

FIXTURE = Path(__file__).resolve().parents[2] / "fixtures" / "checkpoint-2"
CHECKPOINT = FIXTURE / "run" / "checkpoints" / "step-00000010"
LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
SENTENCES = ["le chat dort", "", "\u2581 x \0 \ud7ff", "é" * 500]

REFUSED = (CheckpointError, CheckpointFormatError)


def document_targets() -> list[Target]:
    """Return targets: manifest, checkpoint header, state file, status, recipe, tokenizer model."""
    return [
        Target(
            "manifest",
            "`manifest.json`: values, keys, lines, bytes",
            json_maker(json.loads((FIXTURE / "dataset" / MANIFEST_NAME).read_bytes())),
            _read_manifest,
            (DatasetError,),
        ),
        Target(
            "checkpoint-header",
            "`checkpoint.json`: values, keys, lines, bytes; its own sha256 mostly made right",
            json_maker(json.loads((CHECKPOINT / HEADER).read_bytes()), _signed),
            _read_checkpoint_header,
            REFUSED,
        ),
        Target(
            "state-file",
            "safetensors of a checkpoint: header, lengths, bytes; sha256 and size made right",
            _make_state_file,
            _read_state_file,
            REFUSED,
        ),
        Target(
            "status",
            "`status.json`: values, keys, lines, bytes; those that are read are shown",
            json_maker(json.loads(STATUS.model_dump_json())),
            _read_status,
            (ValueError,),
        ),
        Target(
            "recipe",
            "recipe: values, keys, anchors, lines, bytes",
            _make_recipe,
            _read_recipe,
            (RecipeError,),
        ),
        Target(
            "sentencepiece",
            "SentencePiece model: bytes; those that load encode and decode",
            _make_model,
            _read_model,
            (TokenizerError,),
        ),
    ]


def json_maker(
    seed: Any, finish: Callable[[Random, Any], Any] = lambda random, values: values
) -> Callable[[Random], bytes]:
    def make(random: Random) -> bytes:
        values = mutate_tree(random, seed) if random.random() < 0.8 else seed
        text = json.dumps(finish(random, values), indent=1)
        if random.random() < 0.3:
            text = mutate_lines(random, text)
        data = with_depth(text).encode()
        return mutate_bytes(random, data, data) if random.random() < 0.2 else data

    return make


def _signed(random: Random, values: Any) -> Any:
    if isinstance(values, dict) and random.random() < 0.9:
        return values | {"sha256": sha256_of_header(values)}
    return values


def _read_manifest(data: bytes, folder: Path) -> None:
    (folder / MANIFEST_NAME).write_bytes(data)
    manifest = Manifest.load(open_store(folder, retry_delays_seconds=()))
    for name, _ in manifest.files():
        assert not {"", ".."} & set(name.split("/")), name
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    again = Manifest.load(open_store(folder, retry_delays_seconds=()))
    assert again.to_bytes() == manifest.to_bytes()


def _read_checkpoint_header(data: bytes, folder: Path) -> None:
    (folder / HEADER).write_bytes(data)
    header = read_header(folder)
    for record in header.files:
        assert "/" not in record.name, record
    (folder / HEADER).write_text(header.to_json())
    assert read_header(folder).to_json() == header.to_json()


RUN = RunFolder(FIXTURE / "run")
STATUS = recorded_status(RUN, lasting_status(RUN), None, LAST_BYTES)


def _read_status(data: bytes, folder: Path) -> None:
    run = RunFolder(folder)
    run.status.write_bytes(data)
    read_status(run)
    status_text(run_status_of(folder))


SEED_STATE = sorted(CHECKPOINT.glob("*.safetensors"))
PARAMETERS = json.loads((CHECKPOINT / HEADER).read_bytes())["parameters"]


def _make_state_file(random: Random) -> bytes:
    data = SEED_STATE[0].read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, tensors = data[8 : 8 + length], data[8 + length :]
    kind = random.random()
    if kind < 0.1:  # a changed number, which no reader can recognise as wrong
        at = random.randrange(len(tensors))
        return data[: 8 + length + at] + b"\0" + tensors[at + 1 :]
    if kind < 0.25:
        return mutate_bytes(random, data, data)
    if kind < 0.5:
        text = mutate_bytes(random, header, header)
    else:
        text = with_depth(json.dumps(mutate_tree(random, json.loads(header)))).encode()
    size = len(text) if random.random() < 0.9 else random.choice((0, 2**63, 2**64 - 1, 1))
    return size.to_bytes(8, "little") + text + tensors


def _read_state_file(data: bytes, folder: Path) -> None:
    path = folder / "step-00000010"
    path.mkdir()
    values = json.loads((CHECKPOINT / HEADER).read_bytes())
    other = SEED_STATE[1]
    (path / other.name).write_bytes(other.read_bytes())
    (path / SEED_STATE[0].name).write_bytes(data)
    records = [FileRecord.model_validate(record) for record in values["files"]]
    changed = FileRecord(name=SEED_STATE[0].name, bytes=len(data), sha256=_sha256(data))
    files = [changed if record.name == changed.name else record for record in records]
    values["files"] = [record.model_dump() for record in files]
    (path / HEADER).write_text(json.dumps(values | {"sha256": sha256_of_header(values)}))
    checkpoint = Checkpoint(path)
    checkpoint.verify()
    reader = CheckpointReader(checkpoint)
    for name, tensor in reader.weights().items():
        assert tensor.dtype == torch.float32, (name, tensor.dtype)
        assert list(tensor.shape) == PARAMETERS[name], (name, tensor.shape)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


RECIPE_TEXTS = [path.read_text() for path in sorted(RECIPES.glob("*.yaml"))]
RECIPE_TEXTS.append((FIXTURE / "recipe.yaml").read_text())
RECIPE_VALUES = [yaml.safe_load(text) for text in RECIPE_TEXTS]


def _make_recipe(random: Random) -> bytes:
    number = random.randrange(len(RECIPE_TEXTS))
    text = RECIPE_TEXTS[number]
    if random.random() < 0.6:
        text = yaml.safe_dump(mutate_tree(random, RECIPE_VALUES[number]), sort_keys=False)
    if random.random() < 0.4:
        text = mutate_lines(random, text)
    if random.random() < 0.03:
        text = LAUGHS + text
    data = with_depth(text, 5_000).encode()
    return mutate_bytes(random, data, LAUGHS.encode()) if random.random() < 0.3 else data


def _read_recipe(data: bytes, folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_bytes(data)
    recipe = load_recipe(path)
    json.dumps(identity_of(recipe))


MODEL = (FIXTURE / "dataset" / "tokenizer.model").read_bytes()


def _make_model(random: Random) -> bytes:
    if random.random() < 0.5:  # the pieces are at the beginning, the specifications at the end
        at = random.choice((3_000, len(MODEL) - 1_000))
        part = mutate_bytes(random, MODEL[:at] if at < 4_000 else MODEL[at:], MODEL)
        return part + MODEL[at:] if at < 4_000 else MODEL[:at] + part
    return mutate_bytes(random, MODEL, MODEL)


def _read_model(data: bytes, folder: Path) -> None:
    path = folder / "tokenizer.model"
    path.write_bytes(data)
    tokenizer = SentencePieceTokenizer.load(path)
    field = tokenizer.encode_field(SENTENCES)
    assert len(field.lengths) == len(SENTENCES)
    assert field.ids.min(initial=0) >= 0
    assert field.ids.max(initial=0) < tokenizer.vocabulary_size
    assert len(tokenizer.decode([field.ids.tolist()])) == 1
    tokenizer.piece(tokenizer.vocabulary_size - 1)
