"""Export of a sentence encoder for sentence-transformers: BERT, pooling, normalisation.

    config.json, model.safetensors, tokenizer*       first step: BertModel and its tokenizer
    1_Pooling/config.json, 2_Normalize/config.json   the other two steps
    modules.json                                     the list of the three steps
    sentence_bert_config.json                        maximum number of tokens
    config_sentence_transformers.json                cosine as the similarity of vectors

The files follow sentence-transformers 6.2.0. Steps and kinds of pooling have the names of earlier
versions; 6.2.0 accepts these names, too.
"""

import json
from pathlib import Path
from typing import Any

from data_pipeline.config.pair import SOURCE
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import to_bert_encoder
from transloom.inference.export.bert_folder import write_bert_folder
from transloom.inference.trained_network import TrainedNetwork, exported_network

# Folder and class of each step; the first step includes the tokenizer.
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
# Names of pooling in transloom, and their names in sentence-transformers.
POOLING = {"first": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}


def write_sentence_transformer(trained: TrainedNetwork, folder: Path) -> str:
    """Write a sentence encoder and its tokenizer into a folder; return a description of the model.

    The folder also gets the SentencePiece model, from which tokenizer.json is generated.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
        TrainerError: tokenizer.json cannot represent the tokenizer.
    """
    target = "the format of sentence-transformers"
    network = exported_network(trained, SentenceEncoder, "sentence_encoder", target)
    tokenizer = trained.tokenizers[SOURCE]
    found = to_bert_encoder(network.encoder, tokenizer.pad_id)
    steps = _steps(network, network.encoder.context_length)
    more = {name: (json.dumps(step, indent=2) + "\n").encode() for name, step in steps.items()}
    write_bert_folder(folder, found, tokenizer, more=more)
    return "SentenceTransformer of a BertModel"


def _steps(network: SentenceEncoder, longest: int) -> dict[str, Any]:
    """Return the contents of the files that only sentence-transformers reads, by name."""
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
            "model_args": {"add_pooling_layer": False},  # the network has no pooler
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
