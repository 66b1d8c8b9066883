"""Data of benchmarks: datasets of recipes, prepared and read, and synthetic sentences."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from cluster.recipe import Recipe, find_recipe, load_recipe
from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep, local_rank_steps
from data_pipeline.batching.window import WindowReader
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


def recipe_on_files(files: Path, pieces: int, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of Multi30k on two text files, with the dataset in their folder.

    Args:
        files: path of the files without their suffixes, `.src` and `.tgt`.
        pieces: size of the vocabulary.
    """
    phrases = "builtin:phrasebook/validation"  # required in a recipe, but not read
    settings = [
        f"data.train=[{{source: {files}.src, target: {files}.tgt}}]",
        f"data.validation={{source: '{phrases}.fr', target: '{phrases}.en'}}",
        "data.tests={}",
        f"data.dataset={files.parent}/dataset",
        f"tokenizer.vocabulary_size={pieces}",
    ]
    return load_recipe(find_recipe("multi30k-ende"), [*settings, *overrides])


def first_steps(recipe: Recipe, count: int) -> list[RankStep]:
    """Return the data of the first steps of a run with one rank."""
    store, manifest = open_dataset(recipe.data)
    reader = WindowReader(store, manifest, recipe.data_settings)
    slots = recipe.batching.micro_batches_per_step
    return list(islice(local_rank_steps(reader, Cursor(), 0, 1, slots), count))


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
