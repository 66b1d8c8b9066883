"""Quarantine of permanently lost shards, by tombstones in a child manifest.

A run does not train on the examples of these shards. All other examples keep their order and
numbers, so a run continues with the child manifest as with its parent. There is one exception: a
run may have stopped in the middle of a window that has since lost a shard. The rest of that window
cannot be reconstructed, so the run continues with the next window.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import next_window
from data_pipeline.batching.window import open_mixture
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import Manifest, archived_name
from data_pipeline.dataset.manifest_header import Tombstone
from data_pipeline.errors import DatasetError
from data_pipeline.storage.regular_files import write_atomically
from data_pipeline.storage.store import MANIFEST_NAME, open_store


def quarantine(dataset: Path, shards: Sequence[str], reason: str) -> Manifest:
    """Replace the manifest by a child with tombstones for the shards, and return the child.

    The replaced manifest is kept under another name.

    Raises:
        DatasetError: a shard does not exist or is already left out.
    """
    manifest = Manifest.load(open_store(dataset))
    shards = list(dict.fromkeys(shards))
    known = set(manifest.shards.names())
    for name in shards:
        if name not in known:
            raise DatasetError(
                f"{dataset} has no shard {name!r}. Name shards as `transloom data verify` does, "
                f"such as {manifest.shards.name(0)}."
            )
        if name in manifest.left_out:
            raise DatasetError(
                f"{name} of {dataset} is already quarantined. Remove it from the command."
            )
    # The sha256 of the archived file must be its identity, so the file lists the shards in JSON.
    current = (dataset / MANIFEST_NAME).read_bytes()
    archived = manifest.to_bytes() if manifest.columns_files() else current
    write_atomically(dataset / archived_name(manifest.identity), archived)
    tombstones = tuple(
        Tombstone(shard=name, reason=reason, parent=manifest.identity) for name in shards
    )
    child = manifest.model_copy(update={"tombstones": manifest.tombstones + tombstones})
    child.save(dataset)
    return Manifest.load(open_store(dataset))


def cursor_after(
    manifest: Manifest, settings: DataSettings, identity_before: str, cursor: Cursor
) -> Cursor:
    """Return the cursor at which a run that stopped at `cursor` continues.

    Args:
        identity_before: identity of the manifest under which the run stopped.

    Raises:
        DatasetError, BatchingError: see `open_mixture`.
    """
    left_out = manifest.left_out_since(identity_before)
    if not left_out or not cursor.offset:
        return cursor
    mixture = open_mixture(manifest, settings)
    slices = mixture.slices(cursor.epoch, cursor.window)
    if left_out.isdisjoint(manifest.shards.name(part.shard) for part in slices):
        return cursor
    return next_window(cursor, mixture.windows_per_epoch)
