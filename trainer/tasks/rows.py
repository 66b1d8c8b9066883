"""Rows of packed parts, or of a sentence each, from flat arrays to padded ones."""

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, ranges


def places_in_rows(rows: np.ndarray, sizes: Int64Array) -> tuple[Int64Array, tuple[int, int]]:
    """Where each token lies in the flattened rows, and the shape of these."""
    row_sizes = np.bincount(rows, weights=sizes).astype(np.int64)
    width = int(row_sizes.max())
    before_row = np.cumsum(row_sizes) - row_sizes
    before_part = np.cumsum(sizes) - sizes
    return ranges(before_part - before_row[rows] + rows * width, sizes), (len(row_sizes), width)


def numbers_in_rows(rows: np.ndarray) -> Int64Array:
    """The number of each part in its row, from 0."""
    first = np.searchsorted(rows, rows)
    return np.arange(len(rows)) - first


def sentence_rows(sentences: FieldArrays, pad_id: int) -> list[np.ndarray]:
    """What an encoder reads of sentences that have a row each, int64 [sentences, longest].

    Tokens, segments (0), positions and parts: 0, and -1 at padding.
    """
    lengths = sentences.lengths.astype(np.int64)
    places, shape = places_in_rows(np.arange(len(lengths)), lengths)
    ids = padded_rows(sentences.ids, places, shape, pad_id)
    zeros = np.zeros(len(places), dtype=np.int64)
    positions = padded_rows(ranges(zeros[: len(lengths)], lengths), places, shape, 0)
    return [ids, np.zeros_like(ids), positions, padded_rows(zeros, places, shape, -1)]


def padded_rows(
    values: np.ndarray, places: Int64Array, shape: tuple[int, int], padding: int
) -> np.ndarray:
    """The values at their places, int64 [rows, longest row], and padding elsewhere."""
    padded = np.full(shape[0] * shape[1], padding, dtype=np.int64)
    padded[places] = values
    return padded.reshape(shape)
