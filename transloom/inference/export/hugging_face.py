"""Export in Hugging Face's formats: BERT, GPT-2, Llama, sentence-transformers and MarianMT.

A sentence encoder for sentence-transformers is BERT, pooling, normalisation:

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

from data_pipeline.config.label import LabelsDataConfig
from data_pipeline.config.pair import SOURCE, TARGET, PairDataConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tokenizers.tokenizer import shared_tokenizer
from model.config.transformer import DecodingConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.hugging_face.bert import to_bert, to_bert_encoder, to_bert_labels
from model.hugging_face.files import write_json, write_model
from model.hugging_face.language_model import save_hugging_face, to_hugging_face
from model.hugging_face.marian import ARCHITECTURE, MAX_POSITIONS, to_marian
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer
from transloom.inference.export.bert_folder import write_bert_folder
from transloom.inference.export.marian_tokenizer import tokenizer_files
from transloom.inference.export.model_card import CARD_FILE, model_card
from transloom.inference.trained_network import TrainedNetwork, exported_network

TOKENIZER_FILE = "tokenizer.model"
GENERATION_FILE = "generation_config.json"
# Folder and class of each step; the first step includes the tokenizer.
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
# Names of pooling in transloom, and their names in sentence-transformers.
POOLING = {"first": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}
# Model card of a network that was trained on pairs.
CARD = """---
library_name: transformers
pipeline_tag: fill-mask
language:
- {source}
- {target}
---

# {source} and {target}

An encoder that predicts masked pieces, trained by transloom on pairs ("translation language
modelling", Lample and Conneau 2019) and written as `BertForMaskedLM`.

In training, positions restart at the second side of a pair, which is not the default of
`BertForMaskedLM`: pass them, or logits differ. A text alone needs no positions; its
`token_type_ids` are 0 if it is {source}, and 1 if it is {target}.

```python
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForMaskedLM.from_pretrained("FOLDER").eval()
batch = tokenizer("… <mask> …", "…", return_tensors="pt")
ids = batch["input_ids"]
place = torch.arange(ids.shape[1]).expand_as(ids)
begins = (place * (ids == tokenizer.bos_token_id)).cummax(dim=-1).values
logits = model(**batch, position_ids=place - begins).logits
print(tokenizer.decode(logits[ids == tokenizer.mask_token_id].argmax(dim=-1)))
```
"""


def write_bert(trained: TrainedNetwork, folder: Path, *, pairs: bool = False) -> str:
    """Write a masked language model and its tokenizer, and return the architecture's name.

    The folder also gets the SentencePiece model, from which tokenizer.json is generated. A run that
    starts from this folder compares that model with its dataset's model, so that every id means the
    same piece in both.

    Args:
        pairs: True if the network was trained on pairs, in which both sides begin with BOS.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
        RunError: tokenizer.json cannot represent the tokenizer.
    """
    network = exported_network(trained, MaskedLanguageModel, "encoder_only", "BERT's format")
    tokenizer = shared_tokenizer(trained.tokenizers)
    found = to_bert(network, tokenizer.pad_id)
    return write_bert_folder(folder, found, tokenizer, second_begins=pairs)


def write_bert_of_pairs(trained: TrainedNetwork, folder: Path) -> str:
    """Write the files like `write_bert`, for a network trained on pairs, and add a README.md.

    Both sides of a pair begin with BOS. Positions restart at the second side, which is not BERT's
    default; the README.md shows how to pass them.
    """
    data = trained.recipe.data
    assert isinstance(data, PairDataConfig)
    architecture = write_bert(trained, folder, pairs=True)
    card = CARD.format(source=data.source_language, target=data.target_language)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return architecture


def write_bert_labels(trained: TrainedNetwork, folder: Path) -> str:
    """Write a classifier and its tokenizer into a folder, and return the architecture's name.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
        RunError: tokenizer.json cannot represent the tokenizer.
    """
    names = "label_texts and label_tokens"
    network = exported_network(trained, LabelModel, names, "BERT's format")
    tokenizer, data = trained.tokenizers[TEXT], trained.recipe.data
    assert isinstance(data, LabelsDataConfig)
    found = to_bert_labels(network, tokenizer.pad_id, data.labels)
    return write_bert_folder(folder, found, tokenizer)


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


def write_sentence_transformer(trained: TrainedNetwork, folder: Path) -> str:
    """Write a sentence encoder and its tokenizer into a folder; return a description of the model.

    The folder also gets the SentencePiece model, from which tokenizer.json is generated.

    Raises:
        ModelError: BERT does not support the network; the message names the setting.
        RunError: tokenizer.json cannot represent the tokenizer.
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


def write_marian(trained: TrainedNetwork, folder: Path) -> str:
    """Write the model, its tokenizers and a model card, and return the architecture's name.

    Raises:
        ModelError: Marian does not support the network; the message names the setting.
        RunError: MarianTokenizer does not support the kind of a tokenizer.
    """
    network = exported_network(trained, Transformer, "transformer", "Marian's format")
    data, decoding = trained.recipe.data, trained.recipe.decoding
    assert isinstance(data, PairDataConfig)
    assert isinstance(decoding, DecodingConfig)
    positions = max_positions(data, decoding)
    files = tokenizer_files(
        trained.tokenizers,
        tags=sorted({tag for corpus in data.corpora.values() for tag in corpus.tags.values()}),
        languages={SOURCE: data.source_language, TARGET: data.target_language},
        max_length=positions,
    )
    write_model(folder, to_marian(network, positions))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    write_json(folder / GENERATION_FILE, generation_config(network, decoding, positions))
    (folder / CARD_FILE).write_text(model_card(trained, folder, positions), encoding="utf-8")
    return ARCHITECTURE


def max_positions(data: PairDataConfig, decoding: DecodingConfig) -> int:
    """Return the number of positions for the run's longest sources and their translations.

    A translation of n tokens needs n + 1 positions, because BOS precedes it. The result is at least
    MAX_POSITIONS.
    """
    longest = int(decoding.max_length_factor * data.max_source_length)
    return max(MAX_POSITIONS, data.max_source_length, longest + decoding.max_extra_length + 1)


def generation_config(
    network: Transformer, decoding: DecodingConfig, positions: int
) -> dict[str, Any]:
    """Return the settings of transformers' `generate` that are closest to our search.

    The length penalty of `generate` divides log-probabilities by length^α; ours divides by ((5 +
    length) / 6)^α. With α = 0 both divisors are 1, so hypotheses have the same scores in both,
    except at the length limit. There, `generate` forces EOS and counts it as certain, whereas our
    search counts the log-probability of EOS.
    """
    vocabulary = network.vocabulary
    return {
        "bos_token_id": None if vocabulary.starts_with_padding else vocabulary.bos_id,
        "decoder_start_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "forced_eos_token_id": vocabulary.eos_id,
        "pad_token_id": vocabulary.pad_id,
        "suppress_tokens": sorted({vocabulary.pad_id, vocabulary.bos_id}),
        "max_length": positions,
        "num_beams": decoding.beam_size,
        "length_penalty": decoding.length_penalty,
        "early_stopping": True,
    }
