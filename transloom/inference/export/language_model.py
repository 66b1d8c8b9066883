"""Export of a language model in Hugging Face's GPT-2 or Llama format, with its tokenizer file."""

from pathlib import Path

from data_pipeline.config.text import TEXT
from model.hugging_face.language_model import save_hugging_face, to_hugging_face
from model.networks.decoder_only import DecoderOnly
from transloom.inference.trained_network import TrainedNetwork, exported_network

TOKENIZER_FILE = "tokenizer.model"


def write_language_model(trained: TrainedNetwork, folder: Path) -> str:
    """Write a language model and its tokenizer into a folder, and return the architecture's name.

    Raises:
        ModelError: neither format supports the network; the message names the settings.
    """
    target = "the format of GPT-2 or Llama"
    network = exported_network(trained, DecoderOnly, "decoder_only", target)
    tokenizer = trained.tokenizers[TEXT]
    architecture: str = to_hugging_face(network).config["architectures"][0]
    save_hugging_face(
        network,
        folder,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    (folder / TOKENIZER_FILE).write_bytes(tokenizer.model)
    return architecture
