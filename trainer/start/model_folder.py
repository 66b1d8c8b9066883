"""Marian, BERT, GPT-2 or Llama model in Hugging Face's layout, from which a run can start.

    config.json, model.safetensors (or several and their index) ──sha256──▶ Parent, pinned by a run
    Marian's pytorch_model.bin, if alone ──converted once, in the same folder──▶ model.safetensors

Each row of an embedding is the vector of one piece, so the folder must have the dataset's
tokenizer: Marian's files, or for other models the SentencePiece model that `transloom export`
writes.
"""

import hashlib
import json
from pathlib import Path

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.tokenizers.marian import pack
from foundation.file_model import parse_object
from model.errors import ModelError
from run_store.checkpoints.checkpoint import sha256_of
from run_store.checkpoints.format import Parent
from run_store.errors import RunMismatchError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PYTORCH_WEIGHTS = "pytorch_model.bin"
TOKENIZER = "tokenizer.model"
# Values of `model_type` in config.json with a SentencePiece model; other folders are Marian's.
WITH_SENTENCE_PIECE = ("bert", "gpt2", "llama")


def is_model_folder(path: Path) -> bool:
    """Return whether a folder holds a Hugging Face model; run folders have no config.json."""
    return (path / CONFIG).is_file()


def origin_of(folder: Path, manifest: Manifest) -> Parent:
    """Return a `Parent` with the folder's name and the hash of its config and weights.

    Raises:
        ModelError: there are no weights, or the only weights are a PyTorch file that cannot be
            converted.
        TokenizerError: the folder has no Marian tokenizers.
        RunMismatchError: the folder's tokenizers are not those of the dataset.
    """
    if model_type(folder) in WITH_SENTENCE_PIECE:
        _require_same_model(folder, manifest)
    else:
        _require_same_pieces(folder, manifest)
    files = [folder / CONFIG, *weights_files(folder)]
    hashes = {file.name: sha256_of(file) for file in files}
    text = json.dumps(hashes, sort_keys=True)
    return Parent(run_id=folder.name, step=0, sha256=hashlib.sha256(text.encode()).hexdigest())


def weights_files(folder: Path) -> list[Path]:
    """Return the files of a network's weights: a safetensors file, or several and their index.

    If there is only a PyTorch file, this function converts it.

    Raises:
        ModelError: there are no weights, a file of the index is missing, or the PyTorch file cannot
            be converted.
    """
    several = (folder / INDEX).is_file()  # the reader of the weights prefers an index, too
    if several or model_type(folder) in WITH_SENTENCE_PIECE:
        from model.hugging_face.files import weight_files  # importing torch takes seconds

        return [*([folder / INDEX] if several else []), *weight_files(folder)]
    if not (folder / WEIGHTS).is_file():
        from model.hugging_face.pytorch_file import convert_marian  # importing torch takes seconds

        convert_marian(folder, folder / PYTORCH_WEIGHTS, folder / WEIGHTS)
    return [folder / WEIGHTS]


def model_type(folder: Path) -> object:
    """Return the family of the network in a folder, such as marian or bert.

    Raises:
        ModelError: config.json cannot be read.
    """
    try:
        return parse_object((folder / CONFIG).read_bytes()).get("model_type")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / CONFIG} cannot be read: {error}. Download it again."
        ) from error


def _require_same_model(folder: Path, manifest: Manifest) -> None:
    file = folder / TOKENIZER
    if not file.is_file():
        raise RunMismatchError(
            f"trainer.init_from: {folder} has no {TOKENIZER}, so its embeddings cannot be "
            f"matched with the dataset's pieces. Copy the network's SentencePiece model to {file}. "
            "A network that was trained with WordPiece cannot be used"
        )
    theirs = sha256_of(file)
    settings = f"tokenizer.model={file} and tokenizer.model_sha256={theirs}"
    _require_equal_hashes(manifest, theirs, str(file), settings)


def _require_same_pieces(folder: Path, manifest: Manifest) -> None:
    theirs = hashlib.sha256(pack(folder)).hexdigest()
    settings = (
        f"tokenizer.type=marian, tokenizer.model={folder} and tokenizer.model_sha256={theirs}"
    )
    _require_equal_hashes(manifest, theirs, f"the tokenizer of {folder}", settings)


def _require_equal_hashes(manifest: Manifest, theirs: str, what: str, settings: str) -> None:
    """Require that the dataset's tokenizers have the hash of the network's tokenizer.

    If they do not, the error names `settings`, with which a dataset gets that tokenizer.
    """
    for field, ours in manifest.tokenizers.items():
        if ours.sha256 != theirs:
            raise RunMismatchError(
                f"trainer.init_from: {what} has sha256 {theirs[:16]}…, but the dataset's {field} "
                f"tokenizer has {ours.sha256[:16]}…, so the embeddings would belong to other "
                f"pieces. Prepare the dataset with {settings}"
            )
