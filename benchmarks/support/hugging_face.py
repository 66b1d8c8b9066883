"""Train with Hugging Face's Trainer and record its steps, in scripts of a peer's environment."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (  # type: ignore[import-not-found]
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.support.record import StepRecord


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Text in rows of equal length, cut from a .npy file with the ids of all tokens."""

    def __init__(self, path: str, context: int) -> None:
        ids = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))
        self._rows = ids[: len(ids) // context * context].view(-1, context)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        row = self._rows[number]
        return {"input_ids": row, "labels": row}


class CountingTrainer(Trainer):  # type: ignore[misc]
    """Trainer with the number of tokens in the newest step."""

    tokens = 0

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
        self.tokens = inputs["input_ids"].numel()
        return super().training_step(model, inputs, *rest)


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Callback that records each step."""

    def __init__(self, record: StepRecord) -> None:
        self.record = record
        self.trainer: Any  # trainer that counts `tokens`

    def on_step_end(self, *arguments: Any, **by_name: Any) -> None:
        self.record.step(self.trainer.tokens)


def train_on_rows(model: Any, settings: dict[str, Any], steps: str, **options: Any) -> None:
    """Train a model on rows of text.

    Args:
        settings: `ids` and `context` of `Rows`, and `training`, arguments of TrainingArguments.
        steps: path of the record of steps.
        options: further arguments of the trainer.
    """
    recorder = Recorder(StepRecord(Path(steps)))
    recorder.trainer = CountingTrainer(
        model=model,
        args=TrainingArguments(**settings["training"]),
        train_dataset=Rows(settings["ids"], settings["context"]),
        callbacks=[recorder],
        **options,
    )
    recorder.trainer.train()
