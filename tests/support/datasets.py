"""Prepared datasets that tests change and read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import ShardBlock, unpack_shard
from data_pipeline.storage.store import open_store
from support.files.json_files import edited_json


def edit_manifest(dataset: Path, change: Callable[[Any], object]) -> None:
    """Change the content of a dataset's manifest, which is JSON."""
    with edited_json(dataset / "manifest.json") as content:
        change(content)


def blocks_of(dataset: Path) -> Iterator[ShardBlock]:
    """Yield the blocks of all shards, in order."""
    store = open_store(dataset)
    for shard in Manifest.load(store).shards:
        yield from unpack_shard(store.read(shard.name, shard.sha256, shard.bytes), shard)
