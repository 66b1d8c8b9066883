"""Data of benchmarks: datasets of recipes, prepared and read, and synthetic sentences."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cluster.recipe import Recipe, find_recipe, load_recipe
from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.dataset.shards import ShardBlock, unpack_shard
from data_pipeline.preparation.prepare import prepare
from model.networks.transformer import Vocabulary


def prepared_recipe(name: str, overrides: Sequence[str]) -> Recipe:
    """Return a recipe whose dataset is prepared; an equal dataset is not prepared again."""
    recipe = load_recipe(find_recipe(name), overrides)
    prepare(recipe.data_settings, lambda progress: None)
    return recipe


def blocks_of(recipe: Recipe) -> Iterator[ShardBlock]:
    """Yield the blocks of all shards of a recipe's dataset, in their order."""
    store, manifest = open_dataset(recipe.data)
    for shard in manifest.shards:
        yield from unpack_shard(store.read(shard.name, shard.sha256, shard.bytes), shard)


def save_ids(recipe: Recipe, path: Path) -> None:
    """Write the token ids of a text dataset as one .npy array, for programs compared with ours."""
    ids = [block.fields[TEXT].ids for block in blocks_of(recipe)]
    np.save(path, np.concatenate(ids).astype(np.uint16), allow_pickle=False)


def equal_sentences(sentences: int, length: int, vocabulary: Vocabulary) -> MicroBatch:
    """Return pairs of random sentences; the length counts EOS."""
    generator = np.random.default_rng(1)
    ids = generator.integers(3, vocabulary.target_size, (sentences, length), dtype=np.int32)
    ids[:, -1] = vocabulary.eos_id
    field = FieldArrays(ids.ravel(), np.full(sentences, length, dtype=np.int32))
    return MicroBatch(np.arange(sentences), {"src": field, "tgt": field})
