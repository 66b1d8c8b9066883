"""Export of a sentence encoder for sentence-transformers: BERT, pooling, normalisation.

    config.json, model.safetensors, tokenizer*       BertModel and its tokenizer
    modules.json                                     the three steps, in their order
    sentence_bert_config.json                        maximum number of tokens
    1_Pooling/config.json, 2_Normalize/config.json   the other steps
    config_sentence_transformers.json                cosine as the similarity of vectors

It follows sentence-transformers 6.2.0. The names of the steps and of the kinds of pooling are those
of its earlier versions, which later ones accept, too.
"""

import json
from pathlib import Path
from typing import Any

from data_pipeline.config.pair import SOURCE
from model.errors import ModelError
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import to_bert_encoder
from transloom.inference.export.bert_folder import write_bert_folder
from transloom.inference.trained_network import TrainedNetwork

# Folders and classes of the steps after the tokenizer.
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
# Our name to theirs.
POOLING = {"first": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}


def write_sentence_transformer(trained: TrainedNetwork, folder: Path) -> str:
    """Write the files into a folder, and return a short description of the model.

    The SentencePiece model is written, too; tokenizer.json is generated from it.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
        TrainerError: tokenizer.json does not support the tokenizer.
    """
    network, tokenizer = trained.model, trained.tokenizers[SOURCE]
    if not isinstance(network, SentenceEncoder):
        raise ModelError(
            f"model.network is {trained.recipe.model.network}, but "
            "sentence-transformers supports only sentence_encoder. Export a run of that network."
        )
    found = to_bert_encoder(network.encoder, tokenizer.pad_id)
    steps = _steps(network, network.encoder.context_length)
    more = {name: (json.dumps(step, indent=2) + "\n").encode() for name, step in steps.items()}
    write_bert_folder(folder, found, tokenizer, more=more)
    return "SentenceTransformer of a BertModel"


def _steps(network: SentenceEncoder, longest: int) -> dict[str, Any]:
    """Return the library's own files, by name."""
    wanted = POOLING[network.config.pooling]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(MODULES.items())
    ]
    return {
        "modules.json": modules,
        "sentence_bert_config.json": {
            "max_seq_length": longest,
            "do_lower_case": False,
            "model_args": {"add_pooling_layer": False},  # BERT's pooler, which has no weights here
        },
        "1_Pooling/config.json": {
            "word_embedding_dimension": network.width,
            **{name: name == wanted for name in POOLING.values()},
        },
        "2_Normalize/config.json": {},
        "config_sentence_transformers.json": {
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    }
