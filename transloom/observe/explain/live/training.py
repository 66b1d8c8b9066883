"""Collect the data for the page's view of training: settings of the recipe, and sentence pairs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.errors import TrainerError
from trainer.record.metrics_file import read_backwards
from trainer.record.metrics_lines import ValidationLine
from trainer.runs.folder import RunFolder
from transloom.inference.translator import Translator

LINES_READ = 20_000  # maximum number of lines to search for a validation, from the file's end


def training_settings(translator: Translator) -> dict[str, Any]:
    """Return loss and dropout of the training, and the sentence pairs of the newest validation."""
    header = translator.checkpoint.header
    config = translator.model.config
    trainer = header.recipe.get("trainer", {})
    return {
        "loss": trainer.get("loss", "cross_entropy"),
        "label_smoothing": trainer.get("label_smoothing", 0.0),
        "r_drop": trainer.get("r_drop", 0.0),
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "pairs": validation_pairs(translator.checkpoint.path),
    }


def validation_pairs(checkpoint: Path) -> list[tuple[str, str]]:
    """Return the newest validation's texts with their references; empty if they cannot be read."""
    run = RunFolder(checkpoint.parents[1])
    with suppress(OSError, TrainerError):
        for _, line in zip(range(LINES_READ), read_backwards(run.metrics), strict=False):
            if isinstance(line, ValidationLine):
                return [(sample.source, sample.reference) for sample in line.samples]
    return []
