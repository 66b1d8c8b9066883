"""How many steps an epoch has.

Windows are cut as the data workers cut them. A small dataset is cut whole, and the number is exact;
of a large one the first windows are cut, and the others are taken to be like them.
"""

from dataclasses import dataclass

from cluster.recipe import Recipe
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore

# Bytes of shards that are read at most: about a second's work.
BYTES_READ = 64_000_000


@dataclass(frozen=True)
class Epoch:
    """An epoch in numbers.

    Attributes:
        steps: optimizer steps; a fraction, since steps run over the end of an epoch.
        units: what the loss is divided by: target tokens, say.
        exact: whether all of it was cut.
    """

    steps: float
    units: int
    exact: bool


def measure_epoch(
    recipe: Recipe, store: DatasetStore, manifest: Manifest, bytes_read: int = BYTES_READ
) -> Epoch:
    """Cut windows of the first epoch, as many as have so many bytes, and one at least.

    Raises:
        DatasetFileError: a shard cannot be read.
    """
    reader = WindowReader(store, manifest, recipe.data_settings)
    first = reader.layout(0, 0)
    windows = first.windows_per_epoch
    size = sum(shard.bytes for shard in manifest.shards)
    cut = max(1, min(windows, windows * bytes_read // max(1, size)))
    layouts = [first, *(reader.layout(0, window) for window in range(1, cut))]
    micro_batches = sum(len(layout.units) for layout in layouts)
    units = sum(int(layout.units.sum()) for layout in layouts)
    return Epoch(
        steps=micro_batches * windows / cut / recipe.batching.micro_batches_per_step,
        units=units * windows // cut,
        exact=cut == windows,
    )
