"""Recipes for tests: a tiny model on the phrase book or on Multi30k, with small steps."""

from pathlib import Path
from typing import Any

import yaml

from cluster.recipe import Recipe

# An untrained network translates up to the length limit, without benefit for a test. With these
# limits, a run's last validation takes 1 s of CPU time instead of 4 s.
SHORT_TRANSLATIONS = {"max_length_factor": 0.2, "max_extra_length": 2}


def tiny_values(dataset: Path, **trainer: Any) -> dict[str, Any]:
    """Return a recipe's YAML values; a run of some dozen steps takes seconds."""
    corpora = {
        use: {"source": f"builtin:phrasebook/{use}.fr", "target": f"builtin:phrasebook/{use}.en"}
        for use in ("train", "validation", "test")
    }
    return {
        "name": "tiny",
        "seed": 3,
        "data": {
            "source_language": "fr",
            "target_language": "en",
            "dataset": str(dataset),
            "train": [corpora["train"]],
            "validation": corpora["validation"],
            "tests": {"phrasebook": corpora["test"]},
            "pairs_per_block": 256,
            "blocks_per_shard": 4,
        },
        "tokenizer": {"type": "bpe", "vocabulary_size": 1000, "joint": True},
        "batching": {
            "max_tokens_per_micro_batch": 64,
            "micro_batches_per_step": 5,
            "window_shards": 2,
        },
        "model": {
            "encoder_layers": 1,
            "decoder_layers": 1,
            "width": 32,
            "feed_forward_width": 64,
            "heads": 4,
            "dropout": 0.1,
        },
        "trainer": {
            "max_steps": 20,
            "schedule": {"type": "constant", "peak_learning_rate": 0.003, "warmup_steps": 20},
            "validate_every_steps": 1000,
            **trainer,
        },
        "decoding": {"max_extra_length": 5},
        "tracking": {"wandb": "disabled"},  # a start of W&B takes seconds
        "engine": {"zero_stage": 1},
        "checkpoints": {"every_steps": 1000},
        "cluster": {
            "ranks": 1,
            "cpus_per_rank": 0.5,
            "warm_spares": False,
            "node_check": "off",  # a check takes a second or two of each start on a cluster
            # Tests stop ranks in the middle of a step for longer than such a step may take.
            "deadlines": {"adaptive_step": False},
        },
    }


def tiny_recipe(dataset: Path, **trainer: Any) -> Recipe:
    return Recipe.of(tiny_values(dataset, **trainer))


def write_yaml(path: Path, values: Any) -> Path:
    """Write the values of a recipe into a file, and return its path."""
    path.write_text(yaml.safe_dump(values))
    return path
