"""Assemble micro-batches, compared with a loop over pairs."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.arrays import FieldArrays, concatenate
from data_pipeline.batching.batch import MicroBatch, assemble
from data_pipeline.batching.plan import plan_window


def make_field(lengths: np.ndarray, seed: int) -> FieldArrays:
    ids = np.random.default_rng(seed).integers(4, 99, lengths.sum()).astype(np.int32)
    return FieldArrays(ids, lengths.astype(np.int32))


def split(field: FieldArrays) -> list[list[int]]:
    if not len(field.lengths):
        assert not len(field.ids)
        return []
    return [part.tolist() for part in np.split(field.ids, np.cumsum(field.lengths)[:-1])]


def test_assemble_equals_a_loop_over_pairs() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, (200, 2))
    fields = {"src": make_field(lengths[:, 0], 1), "tgt": make_field(lengths[:, 1], 2)}
    sequences = {name: split(field) for name, field in fields.items()}
    plan = plan_window(lengths, 64, 0, 0, 0)
    micro_batches = assemble(np.arange(1000, 1200), fields, plan)

    assert len(micro_batches) == len(plan.bounds) - 1
    for number, micro_batch in enumerate(micro_batches):
        pairs = plan.order[plan.bounds[number] : plan.bounds[number + 1]]
        assert micro_batch.pair_ids.tolist() == (pairs + 1000).tolist()
        for name, field in micro_batch.fields.items():
            assert split(field) == [sequences[name][pair] for pair in pairs]
            assert field.ids.dtype == field.lengths.dtype == np.int32
            assert field.ids.flags.c_contiguous
            assert micro_batch.tokens(name) == len(field.ids)


def test_a_window_without_pairs_has_no_micro_batches() -> None:
    """A window has no pairs if all its shards are left out."""
    fields = {name: concatenate([]) for name in ("src", "tgt")}
    lengths = np.stack([field.lengths for field in fields.values()], axis=1)
    plan = plan_window(lengths, 64, 0, 0, 0)
    assert assemble(np.empty(0, dtype=np.int64), fields, plan) == []


def test_the_bytes_of_a_micro_batch_include_all_arrays() -> None:
    fields = {"src": make_field(np.array([2, 3]), 0), "tgt": make_field(np.array([4, 1]), 1)}
    micro_batch = MicroBatch(np.array([7, 8]), fields)
    assert fields["src"].bytes == 4 * (5 + 2)
    assert micro_batch.bytes == 8 * 2 + 4 * (5 + 2) + 4 * (5 + 2)
    cut = replace(micro_batch, starts=np.array([0, 0]), rows=np.array([0, 1], dtype=np.int32))
    assert cut.bytes == micro_batch.bytes + 8 * 2 + 4 * 2


def test_a_pickled_micro_batch_does_not_contain_its_window() -> None:
    """A view of a large array is pickled without the rest of the array, in-band and out-of-band."""
    lengths = np.full((10_000, 1), 10)
    plan = plan_window(lengths, 100, 0, 0, 0)
    micro_batch = assemble(np.arange(10_000), {"src": make_field(lengths[:, 0], 0)}, plan)[3]
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(micro_batch, protocol=5, buffer_callback=buffers.append)
    assert len(head) + sum(buffer.raw().nbytes for buffer in buffers) < 2000
    copy = pickle.loads(head, buffers=buffers)  # noqa: S301 - made four lines above
    assert np.array_equal(copy.fields["src"].ids, micro_batch.fields["src"].ids)


def test_concatenate_joins_the_sequences_of_fields() -> None:
    one, two = make_field(np.array([2, 3]), 0), make_field(np.array([4]), 1)
    assert split(concatenate([one, two])) == split(one) + split(two)


def test_concatenating_nothing_gives_no_sequences() -> None:
    nothing = concatenate([])
    assert split(nothing) == []
    assert nothing.ids.dtype == nothing.lengths.dtype == np.int32


@pytest.mark.parametrize("lengths", [[3, 1, 4, 1, 5], [2], []])
def test_part_equals_a_slice_without_a_copy(lengths: list[int]) -> None:
    field = make_field(np.array(lengths, dtype=np.int64), 0)
    for start in range(len(lengths) + 1):
        for stop in range(start, len(lengths) + 1):
            part = field.part(start, stop)
            assert split(part) == split(field)[start:stop]
            assert np.shares_memory(part.ids, field.ids) or start == stop


def test_take_returns_sequences_in_the_given_order() -> None:
    field = make_field(np.array([3, 1, 4, 1, 5]), 0)
    order = [4, 0, 0, 2]
    taken = field.take(np.array(order))
    assert split(taken) == [split(field)[number] for number in order]
    assert split(field.take(np.empty(0, dtype=np.int64))) == []
