"""Small runs on Multi30k that are disturbed in many ways without an effect on their data."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster.supervision import supervisor
from support.cluster.sabotage import kill, process_ids, remember
from support.cluster.strike import Strike
from support.faults.moments import MID_STEP, Orders, Reached
from support.recipes import tiny_values, write_yaml
from support.runs import Runs

STEPS = 90
STOPS = (30, 60, STEPS)
FETCHED_AHEAD = 10  # upper bound of the steps whose data ranks have fetched ahead


def multi30k_runs(corpus: Path, folder: Path, address: str) -> Runs:
    """Return runs of a tiny model on Multi30k: up to 480 tokens per step, a window per 17 steps."""
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
    # Each part ends with a validation, whose translations no test reads.
    values["decoding"] = {"max_length_factor": 0, "max_extra_length": 1}
    recipe = write_yaml(folder / "multi30k-small.yaml", values)
    return Runs(recipe, folder, address)


def train_disturbed(
    runs: Runs,
    orders: Orders,
    monkeypatch: pytest.MonkeyPatch,
    *,
    ranks: int,
    workers: int,
    seed: int,
) -> str:
    """Run a training that is stopped and resumed twice, and kill a data worker in each part.

    Return the run's name.
    """
    name = f"{ranks}-ranks-{workers}-workers"
    started = remember(monkeypatch, supervisor, "DataWorkers")
    dice = random.Random(seed)

    def kill_a_worker(_: Reached) -> None:
        kill(dice.choice(process_ids(started[-1])))

    for first, stop in pairwise((1, *STOPS)):
        moment = replace(MID_STEP, step=dice.randint(first + 1, stop - FETCHED_AHEAD))
        with Strike(orders, moment, kill_a_worker):
            runs.train(
                name,
                f"cluster.ranks={ranks}",
                f"cluster.data_workers={workers}",
                f"trainer.max_steps={stop}",
            )
    return name
