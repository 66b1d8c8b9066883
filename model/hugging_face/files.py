"""Reader and writer of config.json and the weights in the same folder.

Weights are read only as safetensors, because pickle can execute code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import ModelError
from model.hugging_face.weight_mapping import HuggingFaceModel

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def write_model(folder: Path, found: HuggingFaceModel) -> None:
    """Write config.json and model.safetensors, replacing existing files."""
    folder.mkdir(parents=True, exist_ok=True)
    on_host = {name: tensor.cpu() for name, tensor in found.weights.items()}
    save_file(on_host, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, found.config)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object in the format of these files: indented, with sorted keys."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_model(folder: Path) -> HuggingFaceModel:
    """Read config.json and the weights from one or several safetensors files.

    Raises:
        ModelError: a file is missing or damaged.
    """
    config = read_json(folder / CONFIG_FILE)
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        try:
            weights |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{file} cannot be read as safetensors: {error}. Download it again."
            ) from error
    return HuggingFaceModel(config, weights)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that `read_model` reads, which the index lists if it exists.

    Raises:
        ModelError: the folder has no such files, or the index names missing files.
    """
    if (folder / INDEX_FILE).is_file():
        files = read_json(folder / INDEX_FILE).get("weight_map")
        if not isinstance(files, dict) or not all(_is_plain(name) for name in files.values()):
            raise ModelError(
                f"weight_map of {folder / INDEX_FILE} does not name safetensors files in the same "
                "folder. Download the index again."
            )
        named = [folder / name for name in sorted(set(files.values()))]
        missing = ", ".join(file.name for file in named if not file.is_file())
        if missing:
            raise ModelError(
                f"{folder / INDEX_FILE} names {missing}, but the folder does not have these files. "
                "Download them."
            )
        return named
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}, and weights in other formats "
            "are not read: pickle can execute code. Save the network as safetensors."
        )
    return [folder / WEIGHTS_FILE]


def _is_plain(name: object) -> bool:
    """Return True if a value is a file name that cannot leave its folder."""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file cannot be read, or does not contain an object.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Download it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object. Download it again.")
    return content
