"""Safe reading of PyTorch's weight files, which are pickles, and their conversion to safetensors.

    pytorch_model.bin ──size by config.json?──▶ torch.load(weights_only=True) ──▶ from_marian
        ──▶ model.safetensors in the same folder, which is read from then on

With `weights_only`, torch rebuilds only tensors and plain containers, and refuses every other class
or function that the pickle names. The file's size is checked first, and afterwards the total size
of its tensors, several of which may share bytes. So no file takes more memory than the network that
config.json describes.
"""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from model.errors import ModelError
from model.hugging_face.files import CONFIG_FILE, read_json
from model.hugging_face.marian import from_marian, to_marian
from model.hugging_face.weight_mapping import count

BYTES_PER_WEIGHT = 4
ROOM_DIVISOR = 10  # a tenth of the size is added for names and for padding between tensors
ROOM_BYTES = 1_000_000
POSITIONS_BY_DEFAULT = {"max_position_embeddings": 1024}  # default of transformers' MarianConfig
MAX_ENTRIES = 100_000  # maximum number of entries per archive
# Exceptions of torch's reader for damaged files, whose structure it does not validate.
DAMAGE = (
    *(OSError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError),
    *(ArithmeticError, MemoryError, EOFError, struct.error, zipfile.BadZipFile),
)


def convert_marian(folder: Path, source: Path, target: Path) -> None:
    """Write the weights of a Marian network as safetensors, atomically.

    Args:
        folder: directory of the matching config.json.
        source: the PyTorch file.
        target: the file to write.

    Raises:
        ModelError: there is no such file, it is larger than its network or contains anything other
            than tensors, the network cannot be read, or the folder cannot be written.
    """
    config = read_json(folder / CONFIG_FILE)
    weights = read_pytorch(source, most_bytes(config))
    network = from_marian(config, weights)
    # `to_marian` returns a shared matrix only once, as in an export.
    found = {name: tensor.contiguous() for name, tensor in to_marian(network).weights.items()}
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file(found, partial, metadata={"format": "pt"})
        partial.replace(target)
    except (OSError, SafetensorError) as error:  # a full disk is a SafetensorError
        partial.unlink(missing_ok=True)
        raise ModelError(
            f"{target}, the converted copy of {source.name}, cannot be written: {error}. Copy the "
            "folder to a writable directory."
        ) from error


def most_bytes(config: Mapping[str, Any]) -> int:
    """Return the maximum size in bytes of a Marian network's weights, with some margin.

    Raises:
        ModelError: the config lacks a size.
    """
    width, vocabulary = count(config, "d_model"), count(config, "vocab_size")
    if config.get("decoder_vocab_size") is not None:
        vocabulary = max(vocabulary, count(config, "decoder_vocab_size"))
    weights = 4 * vocabulary * width
    weights += 2 * count({**POSITIONS_BY_DEFAULT, **config}, "max_position_embeddings") * width
    for side, attentions in (("encoder", 1), ("decoder", 2)):
        inner = count(config, f"{side}_ffn_dim")
        layer = attentions * (4 * width * (width + 1) + 2 * width)
        layer += 2 * width * inner + inner + 3 * width
        weights += count(config, f"{side}_layers") * layer
    wanted = BYTES_PER_WEIGHT * weights
    return wanted + wanted // ROOM_DIVISOR + ROOM_BYTES


def read_pytorch(path: Path, most: int) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch file, by name.

    Args:
        most: maximum size in bytes.

    Raises:
        ModelError: the file is missing, too large or damaged, or holds anything other than tensors
            by name.
    """
    try:
        _require_size(path, path.stat().st_size, most)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            _require_size(path, sum(entry.file_size for entry in entries), most)
            if len(entries) > MAX_ENTRIES:
                raise ModelError(
                    f"{path} has {len(entries):,} entries, but at most {MAX_ENTRIES:,} are "
                    "expected. Download it again."
                )
        with warnings.catch_warnings(action="ignore"):  # warns of other pickle protocols
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} is a pickle with more than tensors, which could execute code: "
            f"{_reason(error)}. None of it was executed. Use the model's safetensors file, from a "
            "source that you trust."
        ) from error
    except FileNotFoundError as error:
        raise ModelError(
            f"{path.parent} has neither model.safetensors nor {path.name}. Download all files."
        ) from error
    except DAMAGE as error:
        raise ModelError(f"{path} cannot be read: {_reason(error)}. Download it again.") from error
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    ):
        raise ModelError(
            f"{path} does not contain named tensors only. Use the file of a network's weights."
        )
    for name, tensor in found.items():
        if tensor.layout is not torch.strided or tensor.is_meta or not tensor.is_floating_point():
            raise ModelError(
                f"{name[:200]} in {path} is not a plain tensor of floating-point numbers "
                f"({tensor.layout}, {tensor.dtype}, on {tensor.device}). Use the file of a "
                "network's weights."
            )
    _require_size(path, sum(t.numel() * t.element_size() for t in found.values()), most)
    return dict(found)


def _require_size(path: Path, found: int, most: int) -> None:
    if found > most:
        raise ModelError(
            f"{path} has {found:,} bytes, but the network that {CONFIG_FILE} describes has at "
            f"most {most:,}. Use files that belong together."
        )


def _reason(error: Exception) -> str:
    """Return the most useful line of torch's error message, which spans paragraphs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line or "Unsupported" in line]
    return (named or lines or [type(error).__name__])[0][:300]
