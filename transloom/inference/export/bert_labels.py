"""An encoder with a head for labels as Hugging Face's BERT, with its tokenizer."""

from pathlib import Path

from data_pipeline.config.label import LabelsDataConfig
from data_pipeline.config.text import TEXT
from model.errors import ModelError
from model.heads.label_head import LabelModel
from model.hugging_face.bert_labels import to_bert_labels
from transloom.inference.export.bert_folder import write_bert_folder
from transloom.inference.trained_network import TrainedNetwork


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
    return write_bert_folder(folder, found, tokenizer)
