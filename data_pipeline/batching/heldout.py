"""Held-out sets: validation and tests, read from the dataset folder and batched by length.

Their batches depend on the lengths and the budget alone, not on seed, ranks or order of reading. So
every run scores the same batches.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import Int32Array, Int64Array
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.plan import WindowPlan, cut, longest_field, sort_by_length
from data_pipeline.dataset.manifest import SOURCE, TARGET, Manifest
from data_pipeline.errors import DatasetError
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class HeldOut:
    """Aligned sentences that are scored and never trained on."""

    sources: list[str]
    targets: list[str]
    tag: str | None = None  # put before every source sentence


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
    sources, targets = (
        store.read(info.files[field].file, info.files[field].sha256).decode().split("\n")[:-1]
        for field in (SOURCE, TARGET)
    )
    return HeldOut(sources, targets, info.tag)


def plan_heldout(lengths: Int32Array | Int64Array, budget: int) -> WindowPlan:
    """Sorts by length and cuts by budget, shortest first, without shuffling.

    Held-out pairs are never dropped, so one that alone exceeds the budget becomes a batch of its
    own.

    Args:
        lengths: [pairs, fields], EOS included.
    """
    order = sort_by_length(lengths)
    return WindowPlan(order, cut(longest_field(lengths[order]), budget))


def heldout_micro_batches(
    heldout: HeldOut, tokenizers: dict[str, Tokenizer], budget: int
) -> list[MicroBatch]:
    """The planned batches; `pair_ids` are the line numbers of the set, from 0."""
    fields = {
        SOURCE: tokenizers[SOURCE].encode_field(heldout.sources, heldout.tag),
        TARGET: tokenizers[TARGET].encode_field(heldout.targets),
    }
    lengths = np.stack([field.lengths for field in fields.values()], axis=1)
    pair_ids = np.arange(len(lengths), dtype=np.int64)
    return assemble(pair_ids, fields, plan_heldout(lengths, budget))
