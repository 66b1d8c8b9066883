"""Maliciously crafted checkpoints are refused; messages name the file and the tensor."""

import hashlib
import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.quality import memory
from support.records.checkpoints import make_header, save_checkpoint

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.format import HEADER, sha256_of_header
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.reader import CheckpointReader, require_same_shapes
from run_store.errors import CheckpointError, CheckpointFormatError

FILE = "state-00000-of-00001.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Save weights and moments of a parameter `w` of shape [2, 3]; return the checkpoint's path."""
    header = make_header(10, parameters={"w": [2, 3]})
    fragments = [Fragment(kind, "w", 0, torch.arange(6.0)) for kind in ("master", "exp_avg")]
    return save_checkpoint(tmp_path, header, [fragments]).path


def read_all(path: Path) -> None:
    checkpoint = Checkpoint(path)
    checkpoint.verify()
    require_same_shapes(checkpoint, {"w": (2, 3)})
    CheckpointReader(checkpoint).check_numbers()


def change_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the values of checkpoint.json, and update its hash."""
    values = json.loads((path / HEADER).read_bytes())
    change(values)
    values["sha256"] = sha256_of_header(values)
    (path / HEADER).write_text(json.dumps(values))


def write_file(path: Path, tensors: bytes, data: bytes) -> None:
    """Replace the state file, and update its size and hash in checkpoint.json."""
    content = len(tensors).to_bytes(8, "little") + tensors + data
    (path / FILE).write_bytes(content)
    record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    change_header(path, lambda values: values["files"][0].update(record))


def write_tensors(path: Path, tensors: dict[str, Any], data: bytes = bytes(24)) -> None:
    write_file(path, json.dumps(tensors).encode(), data)


def tensor(dtype: str = "F32", shape: Any = (6,), begin: int = 0, end: int = 24) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "I32": ({"master:w:0": tensor("I32")}, "master:w:0 is .*I32.*expected .*F32"),
    "F16": ({"master:w:0": tensor("F16", end=12)}, "master:w:0 is .*F16.*expected .*F32"),
    "transposed": ({"master:w:0": tensor(shape=(3, 2))}, r"\[3, 2\].*expected a flat tensor"),
    "a scalar": ({"master:w:0": tensor(shape=())}, "expected a flat tensor"),
    "negative": ({"master:w:0": tensor(shape=(-6,))}, "expected a flat tensor"),
    "huge": ({"master:w:0": tensor(shape=(10**25,))}, "expected a flat tensor"),
    "beyond the file": ({"master:w:0": tensor(shape=(10**12,), end=4 * 10**12)}, "have 4,000,000,"),
    "true": ({"master:w:0": tensor(shape=(True,), end=4)}, "expected a flat tensor"),
    "a text": ({"master:w:0": "x"}, "expected a flat tensor"),
    "overlapping": (
        {"master:w:0": tensor(), "exp_avg:w:0": tensor()},
        r"exp_avg:w:0 is .*\[0, 24\].*\[24, 48\]",
    ),
    "not all data": ({"master:w:0": tensor(shape=(5,), end=20)}, "have 20 bytes.* file has 24"),
    "no state at all": ({}, "have 0 bytes, but the file has 24"),
    "superfluous": (
        {"master:w:0": tensor(shape=(3,), end=12), "master:x:0": tensor("F32", (3,), 12, 24)},
        "w at element 3, .*shape|holds master:x:0, but checkpoint.json has no such parameter",
    ),
    "missing": ({"exp_avg:w:0": tensor()}, r"lacks master of w, which has the shape \[2, 3\]"),
    "a hole": (
        {"master:w:0": tensor(shape=(2,), end=8), "master:w:4": tensor("F32", (4,), 8, 24)},
        "holds master:w:4, but element 2 of master of w was expected",
    ),
    "no name": ({"weights": tensor()}, "'weights', expected a name KIND:PARAMETER:START"),
    "a start of 300 digits": ({"master:w:" + "9" * 300: tensor()}, "expected a name KIND"),
    "metadata": ({"__metadata__": {"x": "y"}, "master:w:0": tensor()}, "'__metadata__', expected"),
}


@pytest.mark.parametrize(
    ("tensors", "message"),
    TENSORS.values(),
    ids=TENSORS,
)
def test_invalid_tensors_are_refused_by_name(
    checkpoint: Path, tensors: dict[str, Any], message: str
) -> None:
    """The hashes match, so only the content decides."""
    write_tensors(checkpoint, tensors)
    with memory.at_most(3_000_000), pytest.raises(CheckpointError, match=message) as caught:
        read_all(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert len(str(caught.value)) < 1200


HEADERS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "damaged: Expecting"),
    "a list": (b"[]", "expected a JSON object, found a list"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper than 64"),
    "a key twice": (b'{"master:w:0":1,"master:w:0":2}', "'master:w:0' appears twice"),
    "latin-1": (b'{"\xff":1}', "can't decode byte 0xff"),
}


@pytest.mark.parametrize(("header", "message"), HEADERS.values(), ids=HEADERS)
def test_invalid_state_headers_are_refused(checkpoint: Path, header: bytes, message: str) -> None:
    write_file(checkpoint, header, b"")
    with pytest.raises(CheckpointError, match=rf"{FILE} is damaged: .*{message}|{message}"):
        read_all(checkpoint)


def test_a_header_length_beyond_the_end_of_the_file_allocates_no_memory(checkpoint: Path) -> None:
    for length in (2**63 - 1, 10**9, 400):
        content = struct.pack("<Q", length) + b"{}"
        (checkpoint / FILE).write_bytes(content)
        with memory.at_most(1_000_000), pytest.raises(CheckpointError, match=f"has {length:,} by"):
            CheckpointReader(Checkpoint(checkpoint))


@pytest.mark.parametrize("kind", ["master", "exp_avg"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_error_about_a_nonfinite_value_names_its_element(
    tmp_path: Path, kind: str, value: float
) -> None:
    state = {name: torch.arange(6.0) for name in ("master", "exp_avg")}
    state[kind][4] = value
    fragments = [Fragment(name, "w", 0, tensor) for name, tensor in state.items()]
    header = make_header(10, parameters={"w": [2, 3]})
    found = save_checkpoint(tmp_path, header, [fragments])
    reader = CheckpointReader(found)
    if kind == "exp_avg" and value == math.inf:  # allowed: the square of a large gradient
        reader.check_numbers()
        return
    message = rf"{FILE} has {value} as element 4 of {kind} of w, expected a number"
    with pytest.raises(CheckpointError, match=message):
        reader.check_numbers()
    with pytest.raises(CheckpointError, match=message):
        reader.read(kind, "w", 3, 6)
    assert reader.read(kind, "w", 0, 4).tolist() == [0, 1, 2, 3]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another step": (lambda v: v.update(step=10**25), "step: .*less than or equal"),
    "a negative step": (lambda v: v.update(step=-1), "step: .*found -1"),
    "a huge cursor": (lambda v: v["cursor"].update(epoch=10**25), "cursor.epoch: "),
    "tokens": (lambda v: v.update(target_tokens_seen=10**25), "target_tokens_seen: "),
    "bytes": (lambda v: v["files"][0].update(bytes=10**25), "files.0.bytes: "),
    "a negative shape": (lambda v: v["parameters"].update(w=[-2, -3]), "parameters.w.0: .*-2"),
    "a huge shape": (lambda v: v["parameters"].update(w=[10**25]), "parameters.w.0: "),
    "a huge product": (
        lambda v: v["parameters"].update(w=[10**9] * 4),
        "w: .* has 1,000,000,000,0",
    ),
    "many dimensions": (lambda v: v["parameters"].update(w=[1] * 99), "parameters.w: .*most 8"),
    "a transposed shape": (
        lambda v: v["parameters"].update(w=[3, 2]),
        r"parameter w of shape \[3, 2\], but the recipe's model has \[2, 3\]",
    ),
    "a parameter more": (lambda v: v["parameters"].update(x=[1]), "parameter x of shape"),
    "none at all": (lambda v: v.update(parameters={}), "parameter w of shape None"),
    "many keys": (
        lambda v: v.update({f"x{number}": 1 for number in range(10_000)}),
        "x0: Extra inputs.* and 9,997 more",
    ),
    "NaN": (lambda v: v["recipe"].update(x=math.nan), "NaN is not a JSON number"),
    "files": (lambda v: v.update(files=["x"] * 1000), "files.0: "),
    "no files": (lambda v: v.update(files=[]), "names no files"),
    "a file twice": (lambda v: v["files"].append(v["files"][0]), "but element 6 of"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_invalid_values_of_checkpoint_json_are_refused_by_key(
    checkpoint: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_header(checkpoint, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_all(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert len(str(caught.value)) < 1000


CONTENTS = {
    "a list": (b"[]", "expected a JSON object, found a list"),
    "a text": (b'"x"', "expected a JSON object, found a text"),
    "deep": (b'{"format":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested deeper than 64"),
    "a little too deep": (b'{"format":' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper than 64"),
    "too large": (b" " * 16_000_001, "16,000,001 bytes, expected at most 16,000,000"),
    "many values": (b'{"x":[' + b"[]," * 600_000 + b"1]}", "1,200,003 values, expected at most"),
    "a key twice": (b'{"step":1,"step":2}', "the key 'step' appears twice"),
    "half a pair": (b'{"x":"\\ud800"}', "surrogates not allowed"),
    "5,000 digits": (b'{"step":' + b"9" * 5000 + b"}", "4300 digits"),
    "UTF-16": ('{"step":1}'.encode("utf-16"), "can't decode byte 0xff"),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_files_that_are_no_valid_header_are_refused(
    checkpoint: Path, content: bytes, message: str
) -> None:
    (checkpoint / HEADER).write_bytes(content)
    with memory.at_most(40_000_000), pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint(checkpoint)
    assert str(caught.value).startswith(str(checkpoint / HEADER))


def test_a_long_format_name_is_shortened_in_the_error(checkpoint: Path) -> None:
    change_header(checkpoint, lambda values: values.update(format="x" * 100_000))
    with pytest.raises(CheckpointFormatError, match="use the version") as caught:
        Checkpoint(checkpoint)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", [HEADER, FILE])
def test_a_fifo_in_place_of_a_file_is_refused_without_waiting(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    os.mkfifo(checkpoint / name)
    with pytest.raises(CheckpointError, match=r"it is a FIFO, expected a regular|is missing"):
        read_all(checkpoint)
