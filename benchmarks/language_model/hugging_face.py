"""Hugging Face's Trainer with GPT2LMHeadModel, used as documented. Runs in its own environment.

    python hugging_face.py SETTINGS STEPS

SETTINGS is a JSON file: `ids` (a .npy with the whole text as one array), `context`, `model`
(arguments of GPT2Config), `training` (arguments of TrainingArguments). The text is cut into rows
of the context. The model predicts one token of a row less than it is fed; all are counted.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel  # type: ignore[import-not-found]

from benchmarks.support.hugging_face import train_on_rows


def main(settings_path: str, steps: str) -> None:
    settings = json.loads(Path(settings_path).read_text())
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(1)
    train_on_rows(GPT2LMHeadModel(GPT2Config(**settings["model"])), settings, steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
