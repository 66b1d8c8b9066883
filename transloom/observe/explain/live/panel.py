"""Build the live section of a page as HTML: input, places for results, and the packed model."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipeline.config.pair import SOURCE
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from data_pipeline.tasks.masked_text import SHOWN_MASK
from run_store.errors import RunError
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_backwards
from run_store.record.metrics_lines import ValidationLine
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.inference.translator import Translator
from transloom.observe.explain.live.packing import (
    NotLiveError,
    packed,
    packed_filler,
    packed_generator,
)
from transloom.observe.explain.markup import escape, filled, json_in_html, page_file
from transloom.observe.explain.page import LIVE, PageSection

LIVE_STYLE = "live/live.css"  # style sheet of the elements that the live section draws
LINES_READ = 20_000  # maximum number of lines to search for a validation, from the file's end


def live_section(translator: Translator, sentence: str, tag: str | None) -> PageSection | str:
    """Return the section for a sentence, or the reason why the model cannot run in a page."""
    try:
        model = {**packed(translator), "sentence": sentence}
        model["training"] = training_settings(translator)
    except NotLiveError as error:
        return str(error)
    filling = {
        "tag": escape(tag or ""),
        "place": LIVE,
        "model": json_in_html(model),
    }
    return PageSection(
        html=filled(page_file("live/panel.html"), filling),
        style=page_file(LIVE_STYLE),
        module="explain/live/page/panel.js",
    )


def live_text(reader: TextGenerator | MaskFiller, text: str) -> PageSection | str:
    """Return the model and its script, or the reason why the model cannot run in a page."""
    try:
        if isinstance(reader, MaskFiller):
            model = packed_filler(reader)
        else:
            model = packed_generator(reader)
    except NotLiveError as error:
        return str(error)
    texts = [given for given, _ in validation_pairs(reader.checkpoint.path)]
    examples = [given for given in texts if "mask" not in model or SHOWN_MASK in given]
    data = json_in_html({**model, "text": text, "examples": examples})
    return PageSection(
        html=f'<script type="application/json" id="live-model">{data}</script>',
        style=page_file(LIVE_STYLE),
        module="explain/live/page/text_panel.js",
    )


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
        "longest": longest_in_training(translator.checkpoint.path),
    }


def longest_in_training(checkpoint: Path) -> int | None:
    """Return the number of pieces of the longest training source, or None if unknown."""
    with suppress(OSError, RunError):
        dataset = open_store(RunFolder(checkpoint.parents[1]).dataset)
        return Manifest.load(dataset).longest()[SOURCE]
    return None


def validation_pairs(checkpoint: Path) -> list[tuple[str, str]]:
    """Return the newest validation's texts with their references; empty if they cannot be read."""
    run = RunFolder(checkpoint.parents[1])
    with suppress(OSError, RunError):
        for _, line in zip(range(LINES_READ), read_backwards(run.metrics), strict=False):
            if isinstance(line, ValidationLine):
                return [(sample.source, sample.reference) for sample in line.samples]
    return []
