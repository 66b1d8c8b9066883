"""Histograms of the lengths of each field's sequences, which a manifest stores.

Verification compares the stored histograms with the shards. Sentences are counted by their length.
A document may have a million tokens, so documents are counted in bins of powers of two, along with
the exact length of the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import IdArray, Int64Array
from data_pipeline.dataset.manifest_header import DocumentLengths, FieldInfo


@dataclass(frozen=True, eq=False)
class Lengths:
    """Histogram of the lengths of sequences, in tokens.

    Attributes:
        counts: for sentences, the number of sequences of each length 0, 1, 2, …; for documents, the
            number of sequences in each bin of lengths 0, 1, 2–3, 4–7, …
        longest: the exact length of the longest sequence, or 0 if there is none.
    """

    are_documents: bool
    counts: Int64Array
    longest: int

    def to_manifest(self) -> tuple[int, ...] | DocumentLengths:
        counts = tuple(self.counts.tolist())
        return (
            DocumentLengths(counts=counts, longest=self.longest) if self.are_documents else counts
        )


def count_lengths(field: FieldInfo, lengths: IdArray) -> Lengths:
    """Return the histogram of the lengths of some sequences of a field.

    Args:
        lengths: [sequences], in tokens.
    """
    # frexp returns the exponent n for a number in [2^(n - 1), 2^n).
    bins = np.frexp(lengths.astype(np.float64))[1] if field.is_document else lengths
    return Lengths(field.is_document, np.bincount(bins), int(lengths.max(initial=0)))


def add_lengths(field: FieldInfo, parts: Sequence[Lengths]) -> Lengths:
    """Return the sum of a field's histograms, which has the bins of the longest histogram."""
    total = np.zeros(max((len(part.counts) for part in parts), default=0), dtype=np.int64)
    for part in parts:
        total[: len(part.counts)] += part.counts
    return Lengths(field.is_document, total, max((part.longest for part in parts), default=0))
