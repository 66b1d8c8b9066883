"""A job for a `RankPool` that validates an untrained model."""

from collections.abc import Callable
from pathlib import Path

from cluster.recipe import Recipe
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import HeldOut
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from support.recipes import tiny_values
from support.tasks import language_model_values, opened_task
from trainer.process.placement import Placement
from trainer.tasks.task import ValidationResult, training_task
from trainer.training.validation import Validator

SENTENCES = 50


def validate(placement: Placement, dataset: Path, budget: int) -> ValidationResult:
    result = _validate(placement, dataset, budget, lambda: False)
    assert result is not None
    return result


def interrupted_validation(
    placement: Placement, dataset: Path, budget: int
) -> ValidationResult | None:
    """Validate; rank 1 gets a stop request at its third batch."""
    asked: list[None] = []

    def stop_requested() -> bool:
        asked.append(None)
        return placement.rank == 1 and len(asked) == 3

    return _validate(placement, dataset, budget, stop_requested)


def validate_language_model(placement: Placement, dataset: Path) -> ValidationResult:
    """Score the whole held-out set."""
    recipe = Recipe.of(language_model_values(dataset))
    task, (store, manifest) = opened_task(recipe.training())
    validator = Validator(task.scoring(load_heldout(store, manifest, "validation")), placement)
    result = validator.run(task.build_network().eval())
    assert result is not None
    return result


def _validate(
    placement: Placement, dataset: Path, budget: int, stop_requested: Callable[[], bool]
) -> ValidationResult | None:
    values = tiny_values(dataset)
    values["batching"]["max_tokens_per_micro_batch"] = budget
    recipe = Recipe.of(values)
    store, manifest = open_dataset(recipe.data)
    tokenizers = load_tokenizers(store, manifest)
    whole = load_heldout(store, manifest, "validation")
    first = HeldOut({field: texts[:SENTENCES] for field, texts in whole.texts.items()}, {})
    task = training_task(recipe.training(), manifest, tokenizers)
    validator = Validator(task.scoring(first), placement)
    return validator.run(task.build_network().eval(), stop_requested)
