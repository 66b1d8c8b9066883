"""PyTorch files: pickles are read without execution, within a size limit, and converted."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from support.marian import write_model

from model.errors import ModelError
from model.hugging_face.files import read_json, read_model
from model.hugging_face.marian import from_marian
from model.hugging_face.pytorch_file import convert_marian, most_bytes, read_pytorch

PIECES = 60


class Malicious:
    """Object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self):
        return Path.touch, (self._file,)


@pytest.fixture
def folder(tmp_path):
    """Return a model folder with only a PyTorch file, which has all names of shared matrices."""
    model = write_model(tmp_path / "opus", PIECES)
    (tmp_path / "opus" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "opus" / "pytorch_model.bin")
    return tmp_path / "opus"


def convert(folder):
    convert_marian(folder, folder / "pytorch_model.bin", folder / "model.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_file_is_converted_to_the_same_network(folder, zipped):
    config = read_json(folder / "config.json")
    found = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(found, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    expected = dict(from_marian(config, found).named_parameters())
    convert(folder)
    network = from_marian(*read_model(folder))
    for name, weight in network.named_parameters():
        assert torch.equal(weight, expected[name]), name
    assert "model.encoder.embed_tokens.weight" not in load_file(folder / "model.safetensors")
    assert [path.name for path in folder.glob(".*")] == []


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_executed(folder, tmp_path, zipped):
    struck = tmp_path / "struck"
    path = folder / "pytorch_model.bin"
    torch.save({"model": Malicious(struck)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"with more than tensors.*None of it was executed"):
        convert(folder)
    assert not struck.exists()
    assert not (folder / "model.safetensors").exists()
    path.write_bytes(pickle.dumps(Malicious(struck)))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        convert(folder)
    assert not struck.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02s.", b"\x80\x02U\xffab", b"{}"])
def test_a_damaged_pytorch_file_is_reported(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ModelError, match=r"file (cannot be read|is a pickle)"):
        read_pytorch(tmp_path / "file", 10**6)


def test_a_file_larger_than_its_network_is_refused(folder):
    path, most = folder / "pytorch_model.bin", most_bytes(read_json(folder / "config.json"))
    assert path.stat().st_size < most
    with path.open("ab") as file:
        file.truncate(most + 1)
    with pytest.raises(ModelError, match=rf"has {most + 1:,} bytes, but the network .* {most:,}"):
        convert(folder)


def test_an_archive_that_unpacks_to_more_than_its_network_is_refused(folder):
    """The archive itself is small."""
    path, most = folder / "pytorch_model.bin", most_bytes(read_json(folder / "config.json"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", b"\0" * (most + 1))
    assert path.stat().st_size < most
    with pytest.raises(ModelError, match=rf"has {most + 1:,} bytes, but the network"):
        convert(folder)


def test_a_tensor_that_repeats_its_bytes_beyond_the_network_is_refused(folder):
    """The file is small, but the tensor that it describes is large."""
    path, most = folder / "pytorch_model.bin", most_bytes(read_json(folder / "config.json"))
    torch.save({"model.decoder.embed_positions.weight": torch.zeros(1).expand(most, 32)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(ModelError, match=rf"has {4 * 32 * most:,} bytes, but the network"):
        convert(folder)


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2, device="meta"), torch.ones(2, 2).to_sparse(), torch.ones(2, dtype=torch.long)],
)
def test_tensors_that_cannot_be_weights_are_refused(tmp_path, tensor):
    torch.save({"lm_head.weight": tensor}, tmp_path / "file")
    with pytest.raises(ModelError, match=r"lm_head\.weight in .*file is not a plain tensor"):
        read_pytorch(tmp_path / "file", 10**6)


def test_a_conversion_on_a_full_disk_leaves_no_files(folder, monkeypatch):
    def full(weights, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr("model.hugging_face.pytorch_file.save_file", full)
    with pytest.raises(ModelError, match=r"model\.safetensors.* cannot be written.*No space left"):
        convert(folder)
    assert list(folder.glob(".*")) == []
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    "changes",
    [{"decoder_vocab_size": "many"}, {"decoder_vocab_size": -1}, {"d_model": 10**400}],
)
def test_invalid_sizes_in_a_config_are_refused_by_name(folder, changes):
    config = read_json(folder / "config.json") | changes
    with pytest.raises(ModelError, match=rf"{min(changes)} of the config is"):
        most_bytes(config)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.ones(2)])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "file")
    with pytest.raises(ModelError, match="named tensors only"):
        read_pytorch(tmp_path / "file", 10**6)


def test_a_folder_without_any_weights_file_is_refused(folder):
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        convert(folder)
