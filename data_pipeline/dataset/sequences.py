"""What the sequences of a shard have to keep to, so that no other number reaches a network.

A shard's bytes are those that the manifest promises. Who wrote both may have written ids that the
vocabulary has not, or padding, and training would fail far from there, or learn nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import FieldArrays
from data_pipeline.dataset.shards import IDS_SUFFIX, ShardBlock
from data_pipeline.errors import DatasetFileError
from foundation.wording import counted


@dataclass(frozen=True)
class SequenceRules:
    """The rules of one field.

    Attributes:
        vocabulary_size: all ids are below it.
        longest: most tokens of a sequence, as the manifest promises.
        shortest: fewest tokens of a sequence; one with fewer has an empty text.
        pad: the id that stands in no sequence; None if any may.
        eos: the id that ends each sequence; None if any may.
    """

    vocabulary_size: int
    longest: int
    shortest: int = 1
    pad: int | None = None
    eos: int | None = None


def check_sequences(file: str, block: ShardBlock, rules: Mapping[str, SequenceRules]) -> None:
    """Compares a block with the rules by field: a few looks at all numbers at once.

    Raises:
        DatasetFileError: a sequence breaks one; the message names its line in the block.
    """
    for name, arrays in block.fields.items():
        problem = _problem_in(arrays, rules[name])
        if problem:
            expected, found, sequence = problem
            raise DatasetFileError(
                file,
                f"{expected} in {name} of {block.key}.{IDS_SUFFIX}",
                f"{found} in sequence {sequence + 1:,}",
            )


def _problem_in(arrays: FieldArrays, rules: SequenceRules) -> tuple[str, str, int] | None:
    """What was expected, what was found, and the number of the first sequence that has it."""
    ids, lengths = arrays.ids, arrays.lengths
    if not len(lengths):
        return None
    if lengths.min() < rules.shortest:
        sequence = int(np.argmax(lengths < rules.shortest))
        expected = f"a text, of at least {counted(rules.shortest, 'token')},"
        return expected, counted(int(lengths[sequence]), "token"), sequence
    if lengths.max() > rules.longest:
        sequence = int(np.argmax(lengths > rules.longest))
        expected = f"at most {counted(rules.longest, 'token')}, as manifest.json says,"
        return expected, counted(int(lengths[sequence]), "token"), sequence
    ends = np.cumsum(lengths, dtype=np.int64)
    smallest, largest = int(ids.min()), int(ids.max())
    if largest >= rules.vocabulary_size:
        place = int(np.argmax(ids >= rules.vocabulary_size))
        expected = f"ids below the vocabulary's size {rules.vocabulary_size:,}"
        return expected, f"id {int(ids[place]):,}", int(np.searchsorted(ends, place, "right"))
    # Usually padding is 0, and the smallest id says that there is none.
    if rules.pad is not None and smallest <= rules.pad <= largest:
        padding = ids == rules.pad
        if padding.any():
            place = int(np.argmax(padding))
            sequence = int(np.searchsorted(ends, place, "right"))
            return "no padding", f"the id of padding, {rules.pad},", sequence
    if rules.eos is not None:
        last = ids[ends - 1]
        if (last != rules.eos).any():
            sequence = int(np.argmax(last != rules.eos))
            found = f"{int(last[sequence]):,} as the last id"
            return f"EOS, {rules.eos}, as the last id", found, sequence
    return None
