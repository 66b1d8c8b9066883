"""Estimate the steps of an epoch from the first windows of a dataset.

The windows are the same as those of the data workers. For a small dataset, all windows are cut, and
the number of steps is exact. For a large dataset, only the first windows are cut, and the others
are assumed to be similar.
"""

from dataclasses import dataclass

from cluster.recipe import Recipe
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore

# Maximum bytes of shards to read: about one second of work.
BYTES_READ = 64_000_000


@dataclass(frozen=True)
class Epoch:
    """Size of an epoch.

    Attributes:
        steps: number of optimizer steps, which need not be whole, because a step may extend over
            the end of an epoch.
        units: total of the loss's denominators, for example target tokens.
        exact: whether all windows were cut.
    """

    steps: float
    units: int
    exact: bool


def measure_epoch(
    recipe: Recipe, store: DatasetStore, manifest: Manifest, bytes_read: int = BYTES_READ
) -> Epoch:
    """Cut windows of the first epoch, at least one, and return the size of an epoch.

    Args:
        bytes_read: limit on the bytes of shards to read, which determines the number of windows.

    Raises:
        DatasetFileError: a shard cannot be read.
    """
    reader = WindowReader(store, manifest, recipe.data_settings)
    first = reader.layout(0, 0)
    windows = first.windows_per_epoch
    size = int(manifest.shards.shard_bytes.sum())
    cut = max(1, min(windows, windows * bytes_read // max(1, size)))
    layouts = [first, *(reader.layout(0, window) for window in range(1, cut))]
    micro_batches = sum(len(layout.units) for layout in layouts)
    units = sum(int(layout.units.sum()) for layout in layouts)
    return Epoch(
        steps=micro_batches * windows / cut / recipe.batching.micro_batches_per_step,
        units=units * windows // cut,
        exact=cut == windows,
    )
