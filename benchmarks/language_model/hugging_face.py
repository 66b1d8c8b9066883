"""Hugging Face's Trainer with GPT2LMHeadModel, as its documentation has it. Own environment.

    python hugging_face.py SETTINGS STEPS

SETTINGS is a JSON file: `ids` (a .npy with the whole text as one array), `context`, `model`
(arguments of GPT2Config), `training` (arguments of TrainingArguments). The text is cut into rows
of the context. The model predicts one token of a row less than it is fed; all are counted.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (  # type: ignore[import-not-found]
    GPT2Config,
    GPT2LMHeadModel,
    TrainingArguments,
)

from benchmarks.support.hugging_face import CountingTrainer, Recorder
from benchmarks.support.record import StepRecord


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The text in rows of equal length."""

    def __init__(self, path: str, context: int) -> None:
        ids = torch.from_numpy(np.load(path, allow_pickle=False)).long()
        self._rows = ids[: len(ids) // context * context].view(-1, context)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        return {"input_ids": row, "labels": row}


def main(settings_path: str, steps: str) -> None:
    settings = json.loads(Path(settings_path).read_text())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(1)
    recorder = Recorder(StepRecord(Path(steps)))
    recorder.trainer = CountingTrainer(
        model=GPT2LMHeadModel(GPT2Config(**settings["model"])),
        args=TrainingArguments(**settings["training"]),
        train_dataset=Rows(settings["ids"], settings["context"]),
        callbacks=[recorder],
    )
    recorder.trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
