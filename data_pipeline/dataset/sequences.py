"""Rules for the sequences of a shard, so that no invalid id reaches a network.

The manifest only guarantees a shard's bytes. The program that wrote the shard may have written ids
outside the vocabulary, or padding. Training would then fail later with a misleading error, or learn
nothing.
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
    """Rules for the sequences of one field.

    Attributes:
        vocabulary_size: number of ids; every id must be smaller.
        longest: maximum tokens of a sequence, according to the manifest.
        shortest: minimum tokens of a sequence; a shorter one would have an empty text.
        pad: the id that no sequence may contain, or None if all ids are allowed.
        eos: the id that must end each sequence, or None if any id may end it.
    """

    vocabulary_size: int
    longest: int
    shortest: int = 1
    pad: int | None = None
    eos: int | None = None


def check_sequences(file: str, block: ShardBlock, rules: Mapping[str, SequenceRules]) -> None:
    """Check a block's fields against their rules, in a few vectorised passes over all ids.

    Raises:
        DatasetFileError: a sequence breaks a rule; the message gives its number in the block.
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
    """Return (expected, found, number of the sequence) for the first problem, or None."""
    ids, lengths = arrays.ids, arrays.lengths
    if not len(lengths):
        return None
    if lengths.min() < rules.shortest:
        sequence = int(np.argmax(lengths < rules.shortest))
        expected = f"a text, of at least {counted(rules.shortest, 'token')},"
        return expected, counted(int(lengths[sequence]), "token"), sequence
    if lengths.max() > rules.longest:
        sequence = int(np.argmax(lengths > rules.longest))
        expected = f"at most {counted(rules.longest, 'token')}, as in manifest.json,"
        return expected, counted(int(lengths[sequence]), "token"), sequence
    ends = np.cumsum(lengths, dtype=np.int64)
    smallest, largest = int(ids.min()), int(ids.max())
    if largest >= rules.vocabulary_size:
        place = int(np.argmax(ids >= rules.vocabulary_size))
        expected = f"ids below the vocabulary's size {rules.vocabulary_size:,}"
        return expected, f"id {int(ids[place]):,}", int(np.searchsorted(ends, place, "right"))
    # The padding id is usually 0, so the smallest id usually shows that there is no padding.
    if rules.pad is not None and smallest <= rules.pad <= largest:
        padding = ids == rules.pad
        if padding.any():
            place = int(np.argmax(padding))
            sequence = int(np.searchsorted(ends, place, "right"))
            return "no padding", f"the padding id, {rules.pad},", sequence
    if rules.eos is not None:
        last = ids[ends - 1]
        if (last != rules.eos).any():
            sequence = int(np.argmax(last != rules.eos))
            found = f"{int(last[sequence]):,} as the last id"
            return f"EOS, {rules.eos}, as the last id", found, sequence
    return None
