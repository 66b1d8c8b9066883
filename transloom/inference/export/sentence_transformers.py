"""A sentence encoder as the library sentence-transformers opens it: BERT, pooling, length 1.

    config.json, model.safetensors, tokenizer*       BertModel and its tokenizer
    modules.json                                     the three steps, in their order
    sentence_bert_config.json                        how many tokens are read
    1_Pooling/config.json, 2_Normalize/config.json   the other steps
    config_sentence_transformers.json                that vectors are compared by their cosine

Read in sentence-transformers 6.2.0. The names of the steps and of the kinds of pooling are those of
its earlier versions, which the later ones take, too.
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

# The steps after the tokenizer: their folders and classes there.
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
# Ours: theirs.
POOLING = {"first": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}


def write_sentence_transformer(trained: TrainedNetwork, folder: Path) -> str:
    """Write the files into a folder, and return in a few words which model they are.

    The SentencePiece model lies beside tokenizer.json, which is made of it.

    Raises:
        ModelError: BERT has no such network; the message names what it has not.
        TrainerError: tokenizer.json cannot hold the tokenizer.
    """
    network, tokenizer = trained.model, trained.tokenizers[SOURCE]
    if not isinstance(network, SentenceEncoder):
        raise ModelError(
            f"model.network is {trained.recipe.model.network}, and only sentence_encoder is "
            "opened by sentence-transformers. Export a run of that network."
        )
    found = to_bert_encoder(network.encoder, tokenizer.pad_id)
    steps = _steps(network, network.encoder.context_length)
    more = {name: (json.dumps(step, indent=2) + "\n").encode() for name, step in steps.items()}
    write_bert_folder(folder, found, tokenizer, more=more)
    return "SentenceTransformer of a BertModel"


def _steps(network: SentenceEncoder, longest: int) -> dict[str, Any]:
    """The library's own files, by name."""
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
            "model_args": {"add_pooling_layer": False},  # BERT's own, which has no weights here
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
