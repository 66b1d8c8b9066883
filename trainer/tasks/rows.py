"""Rows of packed parts, from flat arrays to padded ones."""

import numpy as np

from data_pipeline.arrays import Int64Array, ranges


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


def padded_rows(
    values: np.ndarray, places: Int64Array, shape: tuple[int, int], padding: int
) -> np.ndarray:
    """The values at their places, int64 [rows, longest row], and padding elsewhere."""
    padded = np.full(shape[0] * shape[1], padding, dtype=np.int64)
    padded[places] = values
    return padded.reshape(shape)
