"""Held-out sets: validation and tests, read from the dataset folder.

Their batches depend on the lengths and the settings alone, not on seed, ranks or order of reading.
So every run scores the same batches.
"""

from data_pipeline.batching.task import HeldOut
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.texts import unpack_heldout
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import DatasetStore


def load_heldout(store: DatasetStore, manifest: Manifest, name: str) -> HeldOut:
    """Reads a held-out set.

    Args:
        name: "validation" or the name of a test set.

    Raises:
        DatasetError: the set is missing or damaged.
    """
    if name not in manifest.heldout:
        raise DatasetError(
            f"The dataset {store.location} has no held-out set {name!r}; it has "
            f"{', '.join(manifest.heldout)}. Name one of these, or add {name} to data.tests and "
            "prepare again."
        )
    info = manifest.heldout[name]
    texts = {}
    for field in manifest.fields:
        file = info.files[field.name]
        data = store.read(file.file, file.sha256)
        texts[field.name] = unpack_heldout(file.file, data, field, info.pairs)
    return HeldOut(texts, {} if info.tag is None else {manifest.fields[0].name: info.tag})
