"""Recipes of tasks other than translation, small enough for tests."""

from pathlib import Path
from typing import Any

import yaml

from cluster.recipe import Recipe
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from foundation.tasks import BUILT_IN_TASKS
from support.recipes import tiny_values
from trainer.recipe import TrainingRecipe
from trainer.tasks.task import TrainingTask, training_task

BUILT_IN = tuple(BUILT_IN_TASKS)
EXTENSIONS = Path(__file__).resolve().parents[2] / "docs" / "extensions"


def opened_task(recipe: TrainingRecipe) -> tuple[TrainingTask, tuple[DatasetStore, Manifest]]:
    """Return the task of a recipe, and its dataset."""
    store, manifest = open_dataset(recipe.data)
    return training_task(recipe, manifest, load_tokenizers(store, manifest)), (store, manifest)


def prepared_task(values: dict[str, Any]) -> tuple[TrainingTask, tuple[DatasetStore, Manifest]]:
    """Prepare the dataset of a recipe's values, and return the recipe's task and this dataset."""
    recipe = Recipe.of(values).training()
    prepare(recipe.data_settings, lambda progress: None)
    return opened_task(recipe)


def copy_values(dataset: Path) -> dict[str, Any]:
    """Return the recipe of docs/extensions/copy_task, with few steps."""
    values: dict[str, Any] = yaml.safe_load((EXTENSIONS / "copy_task" / "recipe.yaml").read_text())
    values["extension_folder"] = str(EXTENSIONS)
    values["data"]["dataset"] = str(dataset)
    values["batching"] = {
        "max_tokens_per_micro_batch": 128,
        "micro_batches_per_step": 5,
        "window_shards": 2,
    }
    values["trainer"] |= {"max_steps": 24, "validate_every_steps": 12}
    values["checkpoints"] = {"every_steps": 6, "best_by": "accuracy"}
    return values | _where()


def language_model_values(dataset: Path, **model: Any) -> dict[str, Any]:
    """Return a tiny language model of the phrase book, whose sentences are packed into rows."""
    text = {use: _lines(use) for use in ("train", "validation", "test")}
    return {
        "name": "tiny-lm",
        "seed": 3,
        "task": "causal_lm",
        "data": {
            "dataset": str(dataset),
            "train": [text["train"]],
            # the whole file would take half of a run's time
            "validation": text["validation"] | {"part": [0, 0.2]},
            "tests": {"phrasebook": text["test"]},
            "pairs_per_block": 256,
        },
        "tokenizer": {"type": "char", "vocabulary_size": 60},
        "batching": {
            "context_length": 16,
            "max_tokens_per_micro_batch": 64,
            "micro_batches_per_step": 5,
            "window_shards": 2,
        },
        "model": {"preset": "llama", "layers": 2, "width": 32, "heads": 4, "dropout": 0.1, **model},
        "trainer": {
            "max_steps": 24,
            "label_smoothing": 0.0,
            "schedule": _constant(0.01),
            "validate_every_steps": 12,
        },
        "decoding": {"max_new_tokens": 12},
        "engine": {"numerics": "exact"},
        "checkpoints": {"every_steps": 6},
        **_where(),
    }


def masked_values(dataset: Path, **model: Any) -> dict[str, Any]:
    """Return a tiny masked model of both languages, one of which is repeated by its weight."""
    values = language_model_values(dataset)
    french = {"files": ["builtin:phrasebook/train.fr"], "format": "text", "weight": 1}
    return values | {
        "name": "tiny-masked",
        "task": "masked_lm",
        "data": values["data"] | {"train": [_lines("train") | {"weight": 2}, french]},
        "batching": values["batching"] | {"context_length": 24, "masking": {"share": 0.2}},
        "model": {"preset": "bert", "layers": 2, "width": 32, "heads": 4, **model},
        "decoding": {"candidates": 3},
    }


def embedding_values(dataset: Path, **model: Any) -> dict[str, Any]:
    """Return a tiny sentence encoder of the phrase book's pairs."""
    tiny = tiny_values(dataset)
    lengths = {"max_source_length": 23, "max_target_length": 23}
    return {
        **{name: tiny[name] for name in ("seed", "tokenizer", "tracking", "cluster")},
        "name": "tiny-embedding",
        "task": "sentence_embedding",
        "data": {**tiny["data"], **lengths},
        "batching": {
            "pairs_per_micro_batch": 12,
            "context_length": 24,
            "max_tokens_per_micro_batch": 288,
            "micro_batches_per_step": 5,
            "window_shards": 2,
        },
        "model": {"preset": "bert", "layers": 2, "width": 32, "heads": 4, **model},
        "trainer": {
            "max_steps": 24,
            "label_smoothing": 0.0,
            "schedule": {"type": "constant", "peak_learning_rate": 0.005, "warmup_steps": 0},
            "validate_every_steps": 12,
        },
        "engine": {"numerics": "exact"},
        "checkpoints": {"every_steps": 6},
    }


def language_values(dataset: Path, **model: Any) -> dict[str, Any]:
    """Return a tiny classifier that distinguishes the languages of the phrase book."""
    values = masked_values(dataset, **model)

    def both(use: str) -> dict[str, Any]:
        files = [f"builtin:phrasebook/{use}.{language}" for language in ("en", "fr")]
        return {"files": files, "format": "text", "labels": ["en", "fr"]}

    uses = {"train": [both("train")], "validation": both("validation")}
    data = values["data"] | uses | {"labels": ["fr", "en"], "tests": {"phrasebook": both("test")}}
    batching = {k: v for k, v in values["batching"].items() if k != "masking"}
    values = {k: v for k, v in values.items() if k != "decoding"}
    return values | {
        "name": "tiny-language",
        "task": "text_classification",
        "data": data,
        "tokenizer": {"type": "bpe", "vocabulary_size": 200},
        "batching": batching | {"max_tokens_per_micro_batch": 120},
        "trainer": values["trainer"] | {"schedule": _constant(0.006)},
    }


def case_values(dataset: Path, **model: Any) -> dict[str, Any]:
    """Return a tiny tagger that labels the spelling of the phrase book's words."""
    values = language_values(dataset, **model)
    uses = {use: _lines(use) | {"derived": "case"} for use in ("train", "validation", "test")}
    data = {
        "dataset": str(dataset),
        "labels": ["lower", "title", "upper", "mixed"],
        "train": [uses["train"]],
        "validation": uses["validation"],
        "tests": {"phrasebook": uses["test"]},
        "pairs_per_block": 256,
    }
    return values | {
        "name": "tiny-case",
        "task": "token_classification",
        "data": data,
        "tokenizer": {"type": "char", "vocabulary_size": 60},
        "batching": values["batching"] | {"max_tokens_per_micro_batch": 64},
    }


def _constant(rate: float) -> dict[str, Any]:
    return {"type": "constant", "peak_learning_rate": rate, "warmup_steps": 0}


def pair_masked_values(dataset: Path, **model: Any) -> dict[str, Any]:
    """Return a tiny masked model of the phrase book's pairs; a third are single sentences."""
    masked = masked_values(dataset, **model)
    pairs = tiny_values(dataset)["data"]
    train = [corpus | {"weight": 2} for corpus in pairs["train"]]
    more = {"source": "builtin:phrasebook/test.fr", "target": "builtin:phrasebook/test.en"}
    return masked | {
        "name": "tiny-tlm",
        "task": "tlm",
        "data": pairs
        | {"train": [*train, {**more, "weight": 1}]}
        | {"max_source_length": 40, "max_target_length": 40},
        "batching": masked["batching"]
        | {"context_length": 112, "max_tokens_per_micro_batch": 224, "alone": 0.33},
    }


def _lines(use: str) -> dict[str, Any]:
    return {"files": [f"builtin:phrasebook/{use}.en"], "format": "text"}


def _where() -> dict[str, Any]:
    tiny = tiny_values(Path("unused"))
    return {"tracking": tiny["tracking"], "cluster": tiny["cluster"]}
