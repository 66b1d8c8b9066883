"""An encoder with a masked language model's head as Hugging Face's BERT, with its tokenizer."""

from pathlib import Path

from data_pipeline.tasks.masking import MASK
from data_pipeline.text_config import TEXT
from model.errors import ModelError
from model.hugging_face.bert import ARCHITECTURE, to_bert
from model.hugging_face.files import write_model
from model.masked_head import MaskedLanguageModel
from trainer.inference.export.fast_tokenizer import tokenizer_files
from trainer.inference.trained_network import TrainedNetwork
from trainer.runs.model_folder import TOKENIZER


def write_bert(trained: TrainedNetwork, folder: Path) -> str:
    """Write the files into a folder, and return the architecture's name.

    The SentencePiece model lies beside tokenizer.json, which is made of it: a run that begins with
    the folder knows by it that pieces mean the same.

    Raises:
        ModelError: BERT has no such network; the message names what it has not.
        TrainerError: tokenizer.json cannot hold the tokenizer.
    """
    network, tokenizer = trained.model, trained.tokenizers[TEXT]
    if not isinstance(network, MaskedLanguageModel):
        raise ModelError(
            f"model.network is {trained.recipe.model.network}, and only encoder_only has BERT's "
            "layout. Export a run of that network."
        )
    found = to_bert(network, tokenizer.pad_id)
    files = tokenizer_files(tokenizer, MASK, network.encoder.context_length)
    write_model(folder, found)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / TOKENIZER).write_bytes(tokenizer.model)
    return ARCHITECTURE
