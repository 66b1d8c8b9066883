"""An encoder with a head for labels as Hugging Face's BERT, with its tokenizer."""

from pathlib import Path

from data_pipeline.errors import TokenizerError
from data_pipeline.label_config import LabelsDataConfig
from data_pipeline.tasks.masking import MASK
from data_pipeline.text_config import TEXT
from data_pipeline.tokenizers.tokenizer import Tokenizer
from model.errors import ModelError
from model.hugging_face.bert_labels import to_bert_labels
from model.hugging_face.files import write_model
from model.label_head import LabelModel
from trainer.inference.export.fast_tokenizer import tokenizer_files
from trainer.inference.trained_network import TrainedNetwork
from trainer.runs.model_folder import TOKENIZER


def write_bert_labels(trained: TrainedNetwork, folder: Path) -> str:
    """Write the files into a folder, and return the architecture's name.

    Raises:
        ModelError: BERT has no such network; the message names what it has not.
        TrainerError: tokenizer.json cannot hold the tokenizer.
    """
    network, tokenizer, data = trained.model, trained.tokenizers[TEXT], trained.recipe.data
    if not isinstance(network, LabelModel):
        raise ModelError(
            f"model.network is {trained.recipe.model.network}, and only label_texts and "
            "label_tokens have BERT's layout. Export a run of one of these networks."
        )
    assert isinstance(data, LabelsDataConfig)
    found = to_bert_labels(network, tokenizer.pad_id, data.labels)
    files = tokenizer_files(tokenizer, _mask_of(tokenizer), network.encoder.context_length)
    write_model(folder, found)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / TOKENIZER).write_bytes(tokenizer.model)
    architecture: str = found.config["architectures"][0]
    return architecture


def _mask_of(tokenizer: Tokenizer) -> str | None:
    """The mask, if the tokenizer is that of a masked model."""
    try:
        tokenizer.tag_id(MASK)
    except TokenizerError:
        return None
    return MASK
