"""Prepared texts of recipes with packed rows, in the formats of all contestants."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import prepared_recipe, save_ids
from cluster.recipe import Recipe
from data_pipeline.config.data import PackedBatchingConfig
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers


@dataclass(frozen=True)
class PackedText:
    """Prepared text, and the sizes of a step in its recipe.

    Attributes:
        overrides: overrides of the recipe: locations of the text and of the dataset.
        ids: a .npy file with all documents one after another.
    """

    overrides: list[str]
    ids: Path
    tokenizer: Tokenizer
    recipe: Recipe

    @property
    def context(self) -> int:
        return self._batching.context_length

    @property
    def rows(self) -> int:
        """Number of rows of a step."""
        micro_batch = self._batching.max_tokens_per_micro_batch // self.context
        return micro_batch * self._batching.micro_batches_per_step

    @property
    def _batching(self) -> PackedBatchingConfig:
        assert isinstance(self.recipe.batching, PackedBatchingConfig)
        return self.recipe.batching


def export_text(recipe_name: str, folder: Path, data: str | None) -> PackedText:
    """Prepare the text of a recipe, and write the same ids in a format for the peers.

    Args:
        data: see `corpus_overrides`.
    """
    overrides = [f"data.dataset={folder / 'dataset'}", *corpus_overrides(recipe_name, data)]
    recipe = prepared_recipe(recipe_name, overrides)
    save_ids(recipe, folder / "ids.npy")
    tokenizer = load_tokenizers(*open_dataset(recipe.data))[TEXT]
    return PackedText(overrides, folder / "ids.npy", tokenizer, recipe)
