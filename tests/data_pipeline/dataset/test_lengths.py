"""Histograms of lengths, which stay small for documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.dataset.lengths import add_lengths, count_lengths
from data_pipeline.dataset.manifest_header import DocumentLengths, FieldInfo

SENTENCE = FieldInfo(name="src", role="source", language="en")
DOCUMENT = FieldInfo(name="text", role="document", language="en")
lengths = st.lists(st.integers(0, 2**31 - 1))


def test_sentences_are_counted_by_length() -> None:
    parts = [
        count_lengths(SENTENCE, np.array(part, dtype=np.int32)) for part in ([1, 0, 1], [], [2] * 3)
    ]
    assert add_lengths(SENTENCE, parts).to_manifest() == (1, 2, 3)
    assert add_lengths(SENTENCE, parts[1:2]).to_manifest() == ()
    assert add_lengths(SENTENCE, []).to_manifest() == ()


@given(st.lists(lengths))
def test_documents_are_counted_by_powers_of_two(parts: list[list[int]]) -> None:
    counted = [count_lengths(DOCUMENT, np.array(part, dtype=np.int64)) for part in parts]
    found = add_lengths(DOCUMENT, counted).to_manifest()
    everything = [length for part in parts for length in part]
    bits = [length.bit_length() for length in everything]
    assert found == DocumentLengths(
        counts=tuple(bits.count(n) for n in range(max(bits, default=-1) + 1)),
        longest=max(everything, default=0),
    )


@pytest.mark.parametrize("length", [1_000_000, 2**31 - 1])
def test_the_lengths_of_a_long_document_take_few_numbers(length: int) -> None:
    found = count_lengths(DOCUMENT, np.array([length])).to_manifest()
    assert isinstance(found, DocumentLengths)
    assert found.longest == length
    assert len(found.counts) <= 32
