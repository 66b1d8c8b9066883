"""Hugging Face's Trainer with BertForMaskedLM, like its example run_mlm.py, in its environment.

    python hugging_face.py SETTINGS STEPS

SETTINGS is a JSON file: `ids` (a .npy with all texts one after another), `context`, `mask` and
`special` (ids), `model` (arguments of BertConfig), `training` (arguments of TrainingArguments).
Texts are joined and cut into rows of the context, so that nothing is padding; tokens are hidden
when a batch is put together, by the rules of DataCollatorForLanguageModeling.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM  # type: ignore[import-not-found]

from benchmarks.support.hugging_face import train_on_rows

SHARE = 0.15
NO_LABEL = -100


class Collator:
    """Hide 15 % of the tokens: 80 % become the mask, 10 % another token, 10 % stay."""

    def __init__(self, mask: int, special: list[int], vocabulary: int) -> None:
        self._mask = mask
        self._special = torch.tensor(special)
        self._vocabulary = vocabulary

    def __call__(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = torch.stack([row["input_ids"] for row in rows])
        chance = torch.full(ids.shape, SHARE).masked_fill(torch.isin(ids, self._special), 0)
        told = torch.bernoulli(chance).bool()
        labels = ids.masked_fill(~told, NO_LABEL)
        kind = torch.rand(ids.shape)
        others = torch.randint(self._vocabulary, ids.shape)
        ids = torch.where(told & (kind < 0.8), torch.tensor(self._mask), ids)
        ids = torch.where(told & (kind >= 0.9), others, ids)
        return {"input_ids": ids, "labels": labels}


def main(settings_path: str, steps: str) -> None:
    settings = json.loads(Path(settings_path).read_text())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(1)
    collator = Collator(settings["mask"], settings["special"], settings["model"]["vocab_size"])
    model = BertForMaskedLM(BertConfig(**settings["model"]))
    train_on_rows(model, settings, steps, data_collator=collator)


if __name__ == "__main__":
    main(*sys.argv[1:])
