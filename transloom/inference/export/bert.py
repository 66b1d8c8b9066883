"""Export of an encoder and its head in Hugging Face's BERT format, with the tokenizer."""

from pathlib import Path

from data_pipeline.config.label import LabelsDataConfig
from data_pipeline.config.pair import PairDataConfig
from data_pipeline.config.text import TEXT
from data_pipeline.tokenizers.tokenizer import shared_tokenizer
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.hugging_face.bert import to_bert, to_bert_labels
from transloom.inference.export.bert_folder import write_bert_folder
from transloom.inference.trained_network import TrainedNetwork, exported_network

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
        TrainerError: tokenizer.json cannot represent the tokenizer.
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
        TrainerError: tokenizer.json cannot represent the tokenizer.
    """
    names = "label_texts and label_tokens"
    network = exported_network(trained, LabelModel, names, "BERT's format")
    tokenizer, data = trained.tokenizers[TEXT], trained.recipe.data
    assert isinstance(data, LabelsDataConfig)
    found = to_bert_labels(network, tokenizer.pad_id, data.labels)
    return write_bert_folder(folder, found, tokenizer)
