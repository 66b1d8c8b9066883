"""Tensors of a translation batch, and the digest of its content."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.dataset.manifest_header import SpecialIds
from data_pipeline.tasks.translation import TASK
from model.blocks.packing import packings
from model.networks.transformer import Vocabulary
from trainer.state.digest import START, fold
from trainer.tasks.batch import to_device

VOCABULARY = Vocabulary(source_size=50, target_size=50, pad_id=0, bos_id=2, eos_id=3)
CPU = torch.device("cpu")


def field(*sequences: list[int]) -> FieldArrays:
    return FieldArrays(
        ids=np.array([i for s in sequences for i in s], dtype=np.int32),
        lengths=np.array([len(s) for s in sequences], dtype=np.int32),
    )


def example(first_pair: int = 7, token: int = 11) -> MicroBatch:
    return MicroBatch(
        pair_ids=np.array([first_pair, 8], dtype=np.int64),
        fields={"src": field([10, token, 3], [12, 3]), "tgt": field([20, 3], [21, 22, 23, 3])},
    )


def test_a_batch_is_padded_and_its_target_input_shifted():
    batch = to_device(example(), VOCABULARY, CPU)
    assert batch.source.tolist() == [[10, 11, 3], [12, 3, 0]]
    assert batch.inputs[2].tolist() == [[20, 3, 0, 0], [21, 22, 23, 3]]
    assert batch.target_input.tolist() == [[2, 20, 0, 0], [2, 21, 22, 23]]
    assert (batch.padding, batch.positions) == (3, 14)
    own = packings(batch.source != 0, batch.inputs[2] != 0)
    assert_close([*map(list, batch.packings)], [*map(list, own)], rtol=0, atol=0)
    doubled = packings(*(torch.cat([ids, ids]) != 0 for ids in (batch.source, batch.inputs[2])))
    twice = batch.twice().packings
    assert_close([*map(list, twice)], [*map(list, doubled)], rtol=0, atol=0)


def test_read_only_arrays_are_copied_into_tensors():
    """Arrays from Ray's object store are read-only, and torch must not write through them."""
    micro_batch = example()
    for arrays in micro_batch.fields.values():
        arrays.ids.flags.writeable = False
    batch = to_device(micro_batch, VOCABULARY, CPU)
    batch.source.fill_(1)
    assert micro_batch.fields["src"].ids[0] == 10


@pytest.mark.parametrize("changed", [example(first_pair=6), example(token=13)])
def test_another_pair_and_another_token_change_the_digest(changed):
    same = to_device(example(), VOCABULARY, CPU).digest
    assert same == to_device(example(), VOCABULARY, CPU).digest
    assert same != to_device(changed, VOCABULARY, CPU).digest


def test_the_boundary_between_sequences_changes_the_digest():
    one = MicroBatch(np.array([0, 1]), {"src": field([5, 6], [7]), "tgt": field([3], [3])})
    two = MicroBatch(np.array([0, 1]), {"src": field([5], [6, 7]), "tgt": field([3], [3])})
    assert to_device(one, VOCABULARY, CPU).digest != to_device(two, VOCABULARY, CPU).digest


def test_swapped_slots_change_the_running_digest():
    slots = [to_device(example(n), VOCABULARY, CPU).digest for n in range(4)]
    swapped = [slots[0], slots[2], slots[1], slots[3]]
    assert len(fold(START, slots)) == len(START)
    assert fold(START, slots) != fold(START, swapped)
    assert fold(fold(START, slots[:2]), slots[2:]) != fold(START, slots)  # folded as two steps


def test_a_dummy_batch_has_one_real_token_per_side():
    batch = to_device(TASK.dummy(SpecialIds(pad=0, unk=1, bos=2, eos=3)), VOCABULARY, CPU)
    assert batch.source.tolist() == [[3]]
    assert batch.target_input.tolist() == [[2]]
    assert batch.inputs[2].tolist() == [[3]]
