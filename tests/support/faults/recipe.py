"""Recipe of the runs with faults: a tiny model on Multi30k or, without it, on the phrase book."""

from itertools import islice
from pathlib import Path
from typing import Any

from cluster.recipe import load_recipe
from data_pipeline.preparation.prepare import prepare
from support.faults.moments import CHECKPOINT_EVERY, STEPS, VALIDATE_EVERY
from support.real_data import MULTI30K
from support.recipes import tiny_values, write_yaml

TRAINING_PAIRS = 8000  # more than a run reads
VALIDATION_PAIRS = 40
DATA_WORKERS = 2


def prepared_recipe(folder: Path) -> Path:
    """Prepare the dataset in the recipe's folder, and return the recipe.

    The recipe has fp32, two ranks, at most 480 tokens per step, and a window every 15 steps.
    """
    values: dict[str, Any] = tiny_values(folder / "dataset")
    if MULTI30K.is_dir():
        values["data"] |= {
            "source_language": "en",
            "target_language": "de",
            "train": [_first_pairs(MULTI30K / "train", TRAINING_PAIRS, folder)],
            "validation": _first_pairs(MULTI30K / "val", VALIDATION_PAIRS, folder),
            "tests": {},
        }
        values["tokenizer"]["vocabulary_size"] = 4000
    values["data"]["blocks_per_shard"] = 1
    values["batching"] = {
        "max_tokens_per_micro_batch": 96,
        "micro_batches_per_step": 5,
        "window_shards": 1,
    }
    values["trainer"] |= {"max_steps": STEPS, "validate_every_steps": VALIDATE_EVERY}
    values["checkpoints"] = {"every_steps": CHECKPOINT_EVERY}
    values["cluster"] |= {"ranks": 2, "data_workers": DATA_WORKERS}
    path = write_yaml(folder / "struck.yaml", values)
    recipe = load_recipe(path)
    prepare(recipe.data_settings, lambda progress: None)
    return path


def _first_pairs(corpus: Path, pairs: int, folder: Path) -> dict[str, str]:
    """Write the beginning of a corpus as a new corpus."""
    paths = {}
    for side, language in (("source", "en"), ("target", "de")):
        path = folder / f"first.{corpus.name}.{language}"
        with corpus.with_suffix(f".{language}").open() as lines:
            path.write_text("".join(islice(lines, pairs)))
        paths[side] = str(path)
    return paths
