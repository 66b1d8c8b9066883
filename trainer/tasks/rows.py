"""Conversion of flat arrays to padded rows, which hold packed parts or one sentence each."""

import numpy as np

from data_pipeline.arrays import FieldArrays, Int64Array, ranges


def token_positions_in_rows(
    rows: np.ndarray, sizes: Int64Array
) -> tuple[Int64Array, tuple[int, int]]:
    """Return the index of each token in the flattened rows, and the shape of the rows.

    Args:
        rows: [parts], the row of each part, ascending from 0.
        sizes: [parts], the number of tokens of each part.
    """
    row_sizes = np.bincount(rows, weights=sizes).astype(np.int64)
    width = int(row_sizes.max())
    before_row = np.cumsum(row_sizes) - row_sizes
    before_part = np.cumsum(sizes) - sizes
    return ranges(before_part - before_row[rows] + rows * width, sizes), (len(row_sizes), width)


def part_numbers_in_rows(rows: np.ndarray) -> Int64Array:
    """Return the number of each part within its row, from 0.

    Args:
        rows: [parts], the row of each part, ascending.
    """
    first = np.searchsorted(rows, rows)
    return np.arange(len(rows)) - first


def positions_per_part(numbers: Int64Array, segments: Int64Array) -> Int64Array:
    """Return each token's position, which starts at 0 in each segment of each part.

    Args:
        numbers: [tokens], the number of the part of each token.
        segments: [tokens], the segment of each token.
    """
    begins = np.ones(len(numbers), dtype=bool)
    begins[1:] = (np.diff(numbers) != 0) | (np.diff(segments) != 0)
    place = np.arange(len(numbers))
    positions: Int64Array = place - np.maximum.accumulate(np.where(begins, place, 0))
    return positions


def sentence_rows(
    sentences: FieldArrays, pad_id: int, segments: Int64Array | None = None
) -> list[np.ndarray]:
    """Return the encoder's inputs for sentences, one sentence per row, int64 [sentences, longest].

    The four arrays are tokens, segments, positions and part numbers. The part number is 0 at tokens
    and -1 at padding.

    Args:
        sentences: the flat ids of the sentences.
        pad_id: the id of padding.
        segments: the segment of each token, all sentences concatenated; None if all are 0.
    """
    return part_rows(sentences, np.arange(len(sentences.lengths)), pad_id, segments)[0]


def part_rows(
    parts: FieldArrays, rows: np.ndarray, pad_id: int, segments: Int64Array | None
) -> tuple[list[np.ndarray], list[np.ndarray], Int64Array]:
    """Return the input of an encoder that reads each part of a text independently.

    Args:
        rows: [parts], the row of each part; sorted.
        segments: as in `sentence_rows`.

    Returns:
        The rows, as `sentence_rows` describes them; the same values without padding, [tokens]; and
        [tokens], the index of each token in a flattened row.
    """
    sizes = parts.lengths.astype(np.int64)
    places, shape = token_positions_in_rows(rows, sizes)
    numbers = np.repeat(part_numbers_in_rows(rows), sizes)
    if segments is None:
        segments = np.zeros_like(numbers)
    positions = positions_per_part(np.repeat(np.arange(len(sizes)), sizes), segments)
    values = [parts.ids, segments, positions, numbers]
    paddings = (pad_id, 0, 0, -1)
    padded = [padded_rows(v, places, shape, p) for v, p in zip(values, paddings, strict=True)]
    return padded, values, places


def padded_rows(
    values: np.ndarray, places: Int64Array, shape: tuple[int, int], padding: int
) -> np.ndarray:
    """Return int64 rows of `shape`, with the values at their places and padding elsewhere.

    Args:
        values: [tokens], the values of all rows.
        places: [tokens], the index of each value in the flattened rows.
        shape: the number of rows, and the length of the longest row.
        padding: the value of all other positions.
    """
    padded = np.full(shape[0] * shape[1], padding, dtype=np.int64)
    padded[places] = values
    return padded.reshape(shape)
