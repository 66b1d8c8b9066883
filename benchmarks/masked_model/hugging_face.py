"""Hugging Face's Trainer with BertForMaskedLM, as its example run_mlm.py has it. Own environment.

    python hugging_face.py SETTINGS STEPS

SETTINGS is a JSON file: `ids` (a .npy with all texts one after another), `context`, `mask` and
`special` (ids), `model` (arguments of BertConfig), `training` (arguments of TrainingArguments).
Texts are joined and cut into rows of the context, so that nothing is padding; tokens are hidden
when a batch is put together, by the rules of DataCollatorForLanguageModeling.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (  # type: ignore[import-not-found]
    BertConfig,
    BertForMaskedLM,
    TrainingArguments,
)

from benchmarks.support.hugging_face import CountingTrainer, Recorder
from benchmarks.support.record import StepRecord

SHARE = 0.15
NO_LABEL = -100


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The texts in rows of equal length."""

    def __init__(self, path: str, context: int) -> None:
        ids = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))
        self._rows = ids[: len(ids) // context * context].view(-1, context)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self._rows[number]


class Collator:
    """Hides 15 % of the tokens: 80 % become the mask, 10 % another token, 10 % stay."""

    def __init__(self, mask: int, special: list[int], vocabulary: int) -> None:
        self._mask = mask
        self._special = torch.tensor(special)
        self._vocabulary = vocabulary

    def __call__(self, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        ids = torch.stack(rows)
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
    recorder = Recorder(StepRecord(Path(steps)))
    vocabulary = settings["model"]["vocab_size"]
    recorder.trainer = CountingTrainer(
        model=BertForMaskedLM(BertConfig(**settings["model"])),
        args=TrainingArguments(**settings["training"]),
        train_dataset=Rows(settings["ids"], settings["context"]),
        data_collator=Collator(settings["mask"], settings["special"], vocabulary),
        callbacks=[recorder],
    )
    recorder.trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
