"""The largest micro-batches that a run can meet, before any of its data is read.

A micro-batch is cut so that its pairs times its longest sequence stay within the budget (see
`data_pipeline.batching.plan`). For every length of that longest sequence, this bounds its rows and
both of its sides. Most of a pass's memory grows with the padded tokens, that of attention scores
with the square of the lengths. For every micro-batch, one of the shapes here is as large in either.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.config import DataSettings
from data_pipeline.dataset.manifest import SOURCE, TARGET, Manifest
from model.transformer import Vocabulary


@dataclass(frozen=True)
class MicroBatchShape:
    """The padded size of a micro-batch; lengths in tokens, EOS included."""

    rows: int
    source_length: int
    target_length: int

    def __str__(self) -> str:
        return f"{self.rows} × ({self.source_length} source + {self.target_length} target) tokens"


def widest_shapes(manifest: Manifest, settings: DataSettings) -> list[MicroBatchShape]:
    """The longest pairs (few rows), the most tokens (many rows), the most attention scores."""
    longest = _longest(manifest, settings)
    lengths = np.arange(_shortest(manifest), max(longest.values()) + 1)
    budget = settings.batching.max_tokens_per_micro_batch
    rows = np.minimum(budget // lengths, manifest.pairs)  # a window has at most an epoch's pairs
    source, target = (np.minimum(lengths, longest[field]) for field in (SOURCE, TARGET))
    tokens = rows * (source + target)
    scores = rows * (source**2 + source * target + target**2)
    widest = dict.fromkeys([len(lengths) - 1, int(tokens.argmax()), int(scores.argmax())])
    return [MicroBatchShape(int(rows[i]), int(source[i]), int(target[i])) for i in widest]


def synthetic_micro_batch(shape: MicroBatchShape, vocabulary: Vocabulary) -> MicroBatch:
    """A micro-batch of that shape without padding, of one ordinary token over and over."""
    special = {vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id}
    token = next(number for number in range(len(special) + 1) if number not in special)
    fields = {}
    for name, length in ((SOURCE, shape.source_length), (TARGET, shape.target_length)):
        ids = np.full((shape.rows, length), token, dtype=np.int32)
        ids[:, -1] = vocabulary.eos_id
        fields[name] = FieldArrays(ids.ravel(), np.full(shape.rows, length, dtype=np.int32))
    return MicroBatch(np.full(shape.rows, -1, dtype=np.int64), fields)


def _longest(manifest: Manifest, settings: DataSettings) -> dict[str, int]:
    """The longest sequence of each field; subword sampling may lengthen one to its limit."""
    longest = manifest.longest()
    sampling = settings.tokenizer.sampling
    limits = {
        "source": settings.data.max_source_length,
        "target": settings.data.max_target_length,
    }
    for field in manifest.fields:
        if sampling.alpha and sampling.sides in ("both", field.role):
            limit = min(limits[field.role], settings.batching.max_tokens_per_micro_batch)
            longest[field.name] = max(longest[field.name], limit)
    return longest


def _shortest(manifest: Manifest) -> int:
    """A lower bound of the length of every pair's longer sequence."""
    return max(1, *(int(np.flatnonzero(counts)[0]) for counts in manifest.lengths.values()))
