"""A Marian model's folder in Hugging Face's layout, as what a run begins with.

config.json, model.safetensors (or several, with their index) ──sha256──▶ Parent, which the run pins
pytorch_model.bin alone ──converted once, beside it──▶ model.safetensors
"""

import hashlib
import json
from pathlib import Path

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.tokenizers.marian import pack
from trainer.checkpoints.format import Parent, sha256_of
from trainer.errors import RunMismatchError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PYTORCH_WEIGHTS = "pytorch_model.bin"


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model of others; a run's folder has no such file."""
    return (path / CONFIG).is_file()


def origin_of(folder: Path, manifest: Manifest) -> Parent:
    """The folder's name, and the hash of what its network is made of.

    Raises:
        ModelError: there are no weights, or a PyTorch file that cannot be converted.
        TokenizerError: it has no Marian tokenizers.
        RunMismatchError: its tokenizers are not the dataset's.
    """
    _require_same_pieces(folder, manifest)
    files = [folder / CONFIG, *weights_files(folder)]
    hashes = {file.name: sha256_of(file) for file in files}
    text = json.dumps(hashes, sort_keys=True)
    return Parent(run_id=folder.name, step=0, sha256=hashlib.sha256(text.encode()).hexdigest())


def weights_files(folder: Path) -> list[Path]:
    """What a network's weights are read from: a safetensors file, or several and their index.

    If there is a PyTorch file alone, it is converted now.

    Raises:
        ModelError: there is none, one is missing, or it cannot be converted.
    """
    if (folder / INDEX).is_file():  # which the reader follows, too
        from model.hugging_face.files import weight_files  # imports torch, for seconds

        return [folder / INDEX, *weight_files(folder)]
    if not (folder / WEIGHTS).is_file():
        from model.hugging_face.pytorch_file import convert_marian  # imports torch, for seconds

        convert_marian(folder, folder / PYTORCH_WEIGHTS, folder / WEIGHTS)
    return [folder / WEIGHTS]


def _require_same_pieces(folder: Path, manifest: Manifest) -> None:
    theirs = hashlib.sha256(pack(folder)).hexdigest()
    for side, ours in manifest.tokenizers.items():
        if ours.sha256 != theirs:
            raise RunMismatchError(
                f"trainer.init_from: the tokenizer of {folder} has sha256 {theirs[:16]}…, that of "
                f"the dataset's {side} {ours.sha256[:16]}…, so their embeddings do not mean the "
                f"same. Prepare the dataset with tokenizer.type=marian, tokenizer.model={folder} "
                f"and tokenizer.model_sha256={theirs}"
            )
