"""Our files are safetensors."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from trainer.checkpoints import state_file
from trainer.checkpoints.state_file import state_file_name, write_state_file


def as_bytes(tensor):
    return tensor.view(torch.uint8).numpy().data


@pytest.mark.parametrize(
    "shapes",
    [{}, {"master:w:0": 1}, {"master:é weight:0": 7, "exp_avg:w:3": 1000, "ema:w:0": 13}],
    ids=len,
)
def test_the_library_reads_what_was_written(tmp_path, monkeypatch, shapes):
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


def test_the_elements_are_aligned(tmp_path):
    path = tmp_path / state_file_name(0, 1)
    write_state_file(path, {"w": 1}, [as_bytes(torch.ones(1))])
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_state_file(tmp_path / "gone" / "a", {}, [])
    assert not (tmp_path / "gone").exists()


def test_data_of_another_size_is_a_programmers_error(tmp_path):
    with pytest.raises(AssertionError):
        write_state_file(tmp_path / "a", {"w": 2}, [as_bytes(torch.ones(1))])
