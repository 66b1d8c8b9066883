"""Function that writes a network in BERT's format, and its tokenizer, into a folder."""

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.errors import TokenizerError
from data_pipeline.tasks.masking import MASK
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.hugging_face.files import write_model
from model.hugging_face.weight_mapping import HuggingFaceModel
from trainer.start.model_folder import TOKENIZER
from transloom.inference.export.fast_tokenizer import tokenizer_files


def write_bert_folder(
    folder: Path,
    found: HuggingFaceModel,
    tokenizer: Tokenizer,
    *,
    second_begins: bool = False,
    more: Mapping[str, bytes] | None = None,
) -> str:
    """Write the network, its tokenizer and other files, and return the architecture's name.

    The folder also gets the SentencePiece model, from which tokenizer.json is generated.

    Args:
        found: the network in Hugging Face's format.
        second_begins: True if the second text of a pair begins with BOS, too.
        more: contents of other files, by name; None if there are none.

    Raises:
        RunError: tokenizer.json cannot represent the tokenizer.
    """
    longest: int = found.config["max_position_embeddings"]
    mask = _mask_of(tokenizer)
    files = tokenizer_files(tokenizer, mask, longest, second_begins=second_begins)
    write_model(folder, found)
    for name, content in {**files, **(more or {}), TOKENIZER: tokenizer.model}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    architecture: str = found.config["architectures"][0]
    return architecture


def _mask_of(tokenizer: Tokenizer) -> str | None:
    """Return the mask piece, or None if the tokenizer has no such piece."""
    try:
        tokenizer.tag_id(MASK)
    except TokenizerError:
        return None
    return MASK
