"""Multi30k in small steps, disturbed in many ways: the data must stay the same."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import supervisor
from support.recipes import tiny_values
from support.runs import Runs
from support.sabotage import RandomKills, remember

STEPS = 90
STOPS = (30, 60, STEPS)


def multi30k_runs(corpus: Path, folder: Path, address: str) -> Runs:
    """Runs of a tiny model on Multi30k: at most 480 tokens a step, a window every 17 steps."""
    values: dict[str, Any] = tiny_values(folder / "dataset")
    sides = {
        use: {"source": str(corpus / f"{name}.en"), "target": str(corpus / f"{name}.de")}
        for use, name in (("train", "train"), ("validation", "val"))
    }
    values["data"] |= {"train": [sides["train"]], "validation": sides["validation"], "tests": {}}
    values["data"] |= {"source_language": "en", "target_language": "de", "blocks_per_shard": 2}
    values["tokenizer"]["vocabulary_size"] = 4000
    values["batching"] = {
        "max_tokens_per_micro_batch": 96,
        "micro_batches_per_step": 5,
        "window_shards": 1,
    }
    values["trainer"] |= {"max_steps": STEPS, "validate_every_steps": 100_000}
    # The end of each part has a validation, whose translations nobody reads.
    values["decoding"] = {"max_length_factor": 0, "max_extra_length": 1}
    recipe = folder / "multi30k-small.yaml"
    recipe.write_text(yaml.safe_dump(values))
    return Runs(recipe, folder, address)


def train_disturbed(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, *, ranks: int, workers: int, seed: int
) -> tuple[str, int]:
    """A run that is stopped and resumed twice while data workers are killed at random.

    Returns its name and how many workers were killed.
    """
    name = f"{ranks}-ranks-{workers}-workers"
    started = remember(monkeypatch, supervisor, "DataWorkers")

    def victims() -> list[Any]:
        return [handle.actor for handle in started[-1].handles] if started else []

    killed = 0
    for stop in STOPS:
        with RandomKills(victims, random.Random(seed + stop), (1, 3), most=2) as kills:
            runs.train(
                name,
                f"cluster.ranks={ranks}",
                f"cluster.data_workers={workers}",
                f"trainer.max_steps={stop}",
            )
        killed += len(kills.killed)
    return name, killed
