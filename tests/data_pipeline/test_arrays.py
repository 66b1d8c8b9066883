"""A flat field is the list of its sequences."""

import pytest

from data_pipeline.arrays import flattened


@pytest.mark.parametrize("sequences", [[], [[]], [[5, 2]], [[2], [], [7, 8, 2], []]])
def test_a_flat_field_gives_its_sequences_back(sequences: list[list[int]]) -> None:
    assert flattened(sequences).rows() == sequences
