"""Corpus of short sentences with one bad pair, and a recipe that trains on it."""

import random
from pathlib import Path
from typing import Any

from cluster.recipe import load_recipe
from foundation.terminal import Terminal
from support.recipes import tiny_values, write_yaml
from transloom.cli.prepare import prepare_dataset

SOURCE = "le zèbre zézaie"
GARBAGE = "Qx7#Zv 9%wK&p Jj0=Qq X4+Vz 8*uU Yy-2@ qZ!xJ 3~kW Gg/5 Zz"


def poisoned_recipe(folder: Path, **trainer: Any) -> Path:
    """Write the corpora and the recipe of a run of 40 steps, and prepare its dataset.

    The bad pair is in a separate corpus, so it occurs once in an epoch of about 28 steps.
    """
    rng = random.Random(5)
    people = ("je", "tu", "il", "elle", "nous", "vous")
    things = ("pain", "vin", "chat", "livre")
    pairs = [f"{rng.choice(people)} voit le {rng.choice(things)}" for _ in range(600)]
    (folder / "plain.tsv").write_text("".join(f"{line}\t{line}\n" for line in pairs))
    (folder / "poison.tsv").write_text(f"{SOURCE}\t{GARBAGE}\n")
    heldout = {"files": [str(folder / "poison.tsv")]}
    values = tiny_values(folder / "dataset", max_steps=40, **trainer)
    values["data"] |= {
        "train": [
            {"name": name, "files": [str(folder / f"{name}.tsv")]} for name in ("plain", "poison")
        ],
        "validation": heldout,
        "tests": {},
        "cleaning": {"max_length_ratio": None},
        "pairs_per_block": 16,
        "blocks_per_shard": 2,
    }
    values["tokenizer"] = {"type": "char", "vocabulary_size": 60, "joint": True}
    values["batching"]["max_tokens_per_micro_batch"] = 128
    values["trainer"]["schedule"] = {
        "type": "constant",
        "peak_learning_rate": 0.01,
        "warmup_steps": 0,
    }
    values["engine"] = {"numerics": "exact", "zero_stage": 1}
    values["checkpoints"] = {"every_steps": 10, "keep_last": 9}
    recipe = write_yaml(folder / "recipe.yaml", values)
    prepare_dataset(load_recipe(recipe), Terminal(stderr=True), overwrite=False)
    return recipe
