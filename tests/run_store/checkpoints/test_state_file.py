"""State files: safetensors that we write and read."""

import hashlib
import os

import pytest
import torch
from safetensors.torch import load_file

from foundation.file_model import MAX_COUNT
from run_store.checkpoints import state_file
from run_store.checkpoints.state_file import LocalStateFile, state_file_name, write_state_file
from run_store.errors import CheckpointError


def as_bytes(tensor):
    return tensor.view(torch.uint8).numpy().data


@pytest.mark.parametrize(
    "shapes",
    [{}, {"master:w:0": 1}, {"master:é weight:0": 7, "exp_avg:w:3": 1000, "ema:w:0": 13}],
    ids=len,
)
def test_the_safetensors_library_reads_what_we_write(tmp_path, monkeypatch, shapes):
    monkeypatch.setattr(state_file, "CHUNK_BYTES", 100)
    generator = torch.Generator().manual_seed(1)
    tensors = {key: torch.randn(numel, generator=generator) for key, numel in shapes.items()}
    path = tmp_path / state_file_name(0, 2)
    data = [as_bytes(tensor) for tensor in tensors.values()]
    record = write_state_file(path, shapes, data)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    content = path.read_bytes()
    assert record.name == "state-00000-of-00002.safetensors"
    assert record.bytes == len(content)
    assert record.sha256 == hashlib.sha256(content).hexdigest()


def test_the_header_length_keeps_elements_aligned_to_eight_bytes(tmp_path):
    path = tmp_path / state_file_name(0, 1)
    write_state_file(path, {"w": 1}, [as_bytes(torch.ones(1))])
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0


def test_writing_does_not_recreate_a_removed_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_state_file(tmp_path / "gone" / "a", {}, [])
    assert not (tmp_path / "gone").exists()


def test_data_that_does_not_match_its_size_is_a_programming_error(tmp_path):
    with pytest.raises(AssertionError):
        write_state_file(tmp_path / "a", {"w": 2}, [as_bytes(torch.ones(1))])


def test_a_file_is_synced_to_the_disk_before_its_record_is_returned(tmp_path, monkeypatch):
    path, synced = tmp_path / state_file_name(0, 1), []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(path.stat().st_size))
    record = write_state_file(path, {"w": 3}, [as_bytes(torch.ones(3))])
    assert synced == [record.bytes] == [path.stat().st_size]


@pytest.mark.parametrize(
    "name",
    ["w:0", ":w:0", "master::0", "master:w:", "master:w:x", "master:w:-1", f"m:w:{'9' * 30}"],
)
def test_a_tensor_name_that_is_no_fragment_is_refused(tmp_path, name):
    path = tmp_path / state_file_name(0, 1)
    write_state_file(path, {name: 3}, [as_bytes(torch.ones(3))])
    with pytest.raises(CheckpointError, match=r"is damaged: .*KIND:PARAMETER:START"):
        LocalStateFile(path)


def test_fragments_are_read_back_as_written(tmp_path):
    path = tmp_path / state_file_name(0, 1)
    sizes = {"master:layers.0:w:5": 2, f"ema:w:{MAX_COUNT - 3}": 3, "ema:v:0": 0}
    write_state_file(path, sizes, [as_bytes(torch.ones(5))])
    found = [(f.kind, f.parameter, f.start, f.stop) for f in LocalStateFile(path).fragments()]
    assert found == [
        ("master", "layers.0:w", 5, 7),
        ("ema", "w", MAX_COUNT - 3, MAX_COUNT),
        ("ema", "v", 0, 0),
    ]


def test_a_file_that_cannot_be_read_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="gone cannot be read: No such file"):
        LocalStateFile(tmp_path / "gone")
