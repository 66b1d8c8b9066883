"""A job for a `RankPool` that validates an untrained model."""

from collections.abc import Callable
from pathlib import Path

from data_pipeline.batching.heldout import HeldOut, load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from support.recipes import tiny_recipe
from trainer.network import build_model
from trainer.placement import Placement
from trainer.validation import ValidationResult, Validator

SENTENCES = 50


def validate(placement: Placement, dataset: Path, budget: int) -> ValidationResult:
    result = _validate(placement, dataset, budget, lambda: False)
    assert result is not None
    return result


def interrupted_validation(
    placement: Placement, dataset: Path, budget: int
) -> ValidationResult | None:
    """Rank 1 is asked to stop when it comes to its third batch."""
    asked: list[None] = []

    def stop_requested() -> bool:
        asked.append(None)
        return placement.rank == 1 and len(asked) == 3

    return _validate(placement, dataset, budget, stop_requested)


def _validate(
    placement: Placement, dataset: Path, budget: int, stop_requested: Callable[[], bool]
) -> ValidationResult | None:
    recipe = tiny_recipe(dataset)
    store, manifest = open_dataset(recipe.data)
    tokenizers = load_tokenizers(store, manifest)
    whole = load_heldout(store, manifest, "validation")
    validator = Validator(
        HeldOut(whole.sources[:SENTENCES], whole.targets[:SENTENCES]),
        tokenizers,
        max_tokens_per_micro_batch=budget,
        decoding=recipe.decoding,
        placement=placement,
    )
    return validator.run(build_model(recipe.training(), tokenizers).eval(), stop_requested)
