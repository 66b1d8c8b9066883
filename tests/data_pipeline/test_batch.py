"""Assembled micro-batches against a loop over pairs."""

import pickle

import numpy as np

from data_pipeline.batch import FieldArrays, assemble, concatenate
from data_pipeline.plan import plan_window


def make_field(lengths: np.ndarray, seed: int) -> FieldArrays:
    ids = np.random.default_rng(seed).integers(4, 99, lengths.sum()).astype(np.int32)
    return FieldArrays(ids, lengths.astype(np.int32))


def split(field: FieldArrays) -> list[list[int]]:
    return [part.tolist() for part in np.split(field.ids, np.cumsum(field.lengths)[:-1])]


def test_assemble_equals_a_loop() -> None:
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


def test_micro_batches_travel_without_their_window() -> None:
    """Views of a big array must be sent as themselves, in-band and out-of-band."""
    lengths = np.full((10_000, 1), 10)
    plan = plan_window(lengths, 100, 0, 0, 0)
    micro_batch = assemble(np.arange(10_000), {"src": make_field(lengths[:, 0], 0)}, plan)[3]
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(micro_batch, protocol=5, buffer_callback=buffers.append)
    assert len(head) + sum(buffer.raw().nbytes for buffer in buffers) < 2000
    copy = pickle.loads(head, buffers=buffers)  # noqa: S301 - made four lines above
    assert np.array_equal(copy.fields["src"].ids, micro_batch.fields["src"].ids)


def test_concatenate_joins_sequences() -> None:
    one, two = make_field(np.array([2, 3]), 0), make_field(np.array([4]), 1)
    assert split(concatenate([one, two])) == split(one) + split(two)
