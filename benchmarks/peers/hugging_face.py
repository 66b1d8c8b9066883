"""Hugging Face's Seq2SeqTrainer with Marian, used as documented. Runs in its own environment.

    python hugging_face.py SETTINGS STEPS

SETTINGS is a JSON file: `ids` (an npz with each side's flat ids and lengths), `model` (arguments
of MarianConfig), `training` (arguments of Seq2SeqTrainingArguments).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (  # type: ignore[import-not-found]
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from benchmarks.support.hugging_face import Recorder
from benchmarks.support.record import StepRecord

NO_LABEL = -100


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Dataset of pairs of piece ids; grouping by length reads `input_ids`."""

    def __init__(self, path: str) -> None:
        arrays = np.load(path, allow_pickle=False)
        self._sides = [
            np.split(arrays[f"{side}.ids"], np.cumsum(arrays[f"{side}.lengths"])[:-1])
            for side in ("src", "tgt")
        ]

    def __len__(self) -> int:
        return len(self._sides[0])

    def __getitem__(self, number: int) -> dict[str, Any]:
        source, target = (side[number] for side in self._sides)
        return {"input_ids": source, "labels": target}


class CountingTrainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Trainer that stores the target tokens of the newest micro-batch, which is a step."""

    tokens = 0

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
        self.tokens = int((inputs["labels"] != NO_LABEL).sum())
        return super().training_step(model, inputs, *rest)


def main(settings_path: str, steps: str) -> None:
    settings = json.loads(Path(settings_path).read_text())
    torch.manual_seed(1)
    model = MarianMTModel(MarianConfig(**settings["model"]))
    pad_id = model.config.pad_token_id

    def collate(pairs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        def padded(key: str, filler: int) -> torch.Tensor:
            rows = [torch.as_tensor(pair[key], dtype=torch.long) for pair in pairs]
            return pad_sequence(rows, batch_first=True, padding_value=filler)

        source, labels = padded("input_ids", pad_id), padded("labels", NO_LABEL)
        return {
            "input_ids": source,
            "attention_mask": (source != pad_id).long(),
            "labels": labels,
            "decoder_input_ids": model.prepare_decoder_input_ids_from_labels(labels),
        }

    recorder = Recorder(StepRecord(Path(steps)))
    recorder.trainer = CountingTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(**settings["training"]),
        train_dataset=Pairs(settings["ids"]),
        data_collator=collate,
        callbacks=[recorder],
    )
    recorder.trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
