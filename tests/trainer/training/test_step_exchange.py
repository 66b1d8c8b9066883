"""The exchange of a step: sums, digests, bad slots, requests and operations of all ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.ranks.engine_jobs import VOCABULARY, micro_batch
from support.records.lines import train_line

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from model.flops import Flops
from run_store.record.metrics_lines import parse_line
from trainer.process.placement import Placement
from trainer.state.progress import Progress
from trainer.tasks.batch import DeviceBatch, to_device
from trainer.training import step_exchange
from trainer.training.step_exchange import (
    StepReport,
    ending_error,
    exchange,
    skipped_line,
    throughput,
)
from trainer.zero.engine import PassResult

SLOTS = 3
RANKS = 4


def batch(slot):
    digest = bytes([slot + 1]) * 32
    return DeviceBatch((), digest, padding=slot, positions=10 * (slot + 1))


def result(slot, finite=True, amax=True):
    sums = [10.0 + slot, 100.0 + slot] if finite else [float("nan"), 100.0]
    peaks = torch.tensor([1.0 + slot, 2.0 + slot]) if finite else torch.tensor([float("nan"), 1.0])
    return PassResult(torch.tensor(sums), torch.tensor(finite), peaks if amax else None)


def report(bad=(), *, amax=True, ranks=1, stall=2.0, stop=False):
    """Return the report of a single rank, or of the second of two, which has all slots but one."""
    slots = range(SLOTS) if ranks == 1 else range(1, SLOTS)
    return exchange(
        slots,
        [batch(slot) for slot in slots],
        [result(slot, slot not in bad, amax) for slot in slots],
        micro_batches_per_step=SLOTS,
        data_stall_seconds=stall,
        stop_requested=stop,
        placement=Placement(rank=ranks - 1, world_size=ranks),
    )


def test_the_sums_of_a_step_are_those_of_its_slots():
    found = report()
    assert found.sums == [10.0 + 11.0 + 12.0, 100.0 + 101.0 + 102.0]
    assert found.padding_fraction == (0 + 1 + 2) / (10 + 20 + 30)
    assert found.slot_digests == [batch(slot).digest for slot in range(SLOTS)]
    assert (found.bad_slots, found.stop_requested, found.data_stall_seconds) == ([], False, 2.0)
    assert np.array_equal(found.amax, [[1, 2], [2, 3], [3, 4]])


@pytest.mark.parametrize("bad", [(0,), (2,), (0, 1, 2)], ids=str)
def test_bad_slots_are_named_and_do_not_add_to_the_sums(bad):
    found = report(bad)
    good = [slot for slot in range(SLOTS) if slot not in bad]
    assert found.bad_slots == list(bad)
    assert found.sums == [sum(10.0 + slot for slot in good), sum(100.0 + slot for slot in good)]
    assert found.amax is None
    assert len(found.slot_digests) == SLOTS


def test_a_report_has_no_maxima_if_the_passes_measured_none():
    found = report(amax=False)
    assert found.amax is None
    assert found.sums == report().sums


@pytest.mark.parametrize(("mine", "theirs"), [(False, True), (True, False), (False, False)])
def test_a_stop_request_of_any_rank_is_reported_and_stalls_are_averaged(monkeypatch, mine, theirs):
    def add_the_first_rank(values, placement):
        assert not values[0].any()  # the slot of the first rank is zero here
        other = torch.zeros_like(values)
        other[0, :2] = torch.tensor([5.0, 30.0])
        other[0, step_exchange._DATA] = 4.0
        other[-1, 0] = float(theirs)
        return values + other

    monkeypatch.setattr(step_exchange, "sum_over_ranks", add_the_first_rank)
    found = report(ranks=2, stall=2.0, stop=mine)
    assert found.stop_requested == (mine or theirs)
    assert found.data_stall_seconds == 3.0
    assert found.padding_fraction == (5 + 1 + 2) / (30 + 20 + 30)
    assert found.sums == [11.0 + 12.0, 101.0 + 102.0]


@pytest.mark.parametrize(
    ("slots", "ranks"), [([4, 0, 3], [0, 1]), ([1], [0]), ([], [])], ids=["some", "one", "none"]
)
def test_a_skipped_step_names_the_ranks_of_its_bad_slots(slots, ranks):
    """A step of five slots on two ranks."""
    placement = Placement(rank=1, world_size=2)
    bad = replace(report(), bad_slots=slots, slot_digests=[b""] * 5)
    cursor = Cursor(1, 2, 3)
    data = RankStep(range(3, 5), [], (2, 1, 1, 1, 2), cursor, cursor)
    progress = Progress(step=9, skipped_steps=6, skipped_in_a_row=2, data_digest="d")
    line = skipped_line(progress, data, bad, placement)
    assert line.ranks == ranks
    assert (line.step, line.slots, line.in_a_row, line.skipped_steps) == (9, slots, 2, 6)
    assert (line.epoch, line.window, line.offset, line.data_digest) == (1, 2, 3, "d")
    said = str(ending_error(line))
    assert said.startswith("2 steps in a row, up to step 9,")
    assert ("the sum of all slots" in said) == (not slots)
    assert (f"slots {slots} of ranks {line.ranks}" in said) == bool(slots)
    assert "trainer.stop_after_skipped_steps is 2" in said


def counted_report(flops, peak):
    return StepReport(
        [1.0], [1.0], [], 0.0, [], 0.0, False, flops=flops, peak_flops_per_second=peak
    )


def test_throughput_is_given_for_all_ranks_and_per_rank():
    fields = throughput(counted_report(Flops(6 * 10**12, 8 * 10**12), 12e12), 2.0, RANKS)
    assert fields == {
        "model_flops": 6 * 10**12,
        "hardware_flops": 8 * 10**12,
        "tflops_per_second": 3.0,
        "tflops_per_second_per_rank": 0.75,
        "mfu": 0.25,
    }
    line = train_line(1, **fields)
    assert parse_line(line.to_json().encode()) == line


def test_mfu_requires_a_peak_and_throughput_requires_a_count_of_operations():
    assert throughput(counted_report(Flops(10, 10), None), 1.0, 1)["mfu"] is None
    assert throughput(counted_report(None, 1e12), 1.0, 1) == {}
    assert "flops" not in train_line(1).to_json()


@pytest.mark.parametrize("peak", [None, 5e12])
def test_an_exchange_sums_operations_exactly(peak):
    """A step of a large network has more operations than fp32 can represent exactly."""
    batches = [to_device(micro_batch(1, slot), VOCABULARY, torch.device("cpu")) for slot in (0, 1)]
    counted = [Flops(2**52 - 1, 2**52), Flops(3, 5)]
    batches = [
        type(batch)(batch.inputs, batch.digest, batch.padding, batch.positions, flops)
        for batch, flops in zip(batches, counted, strict=True)
    ]
    one = PassResult(torch.ones(1), torch.tensor(True))
    found = exchange(
        range(2),
        batches,
        [one, one],
        micro_batches_per_step=2,
        data_stall_seconds=0.0,
        stop_requested=False,
        placement=Placement(),
        peak_flops_per_second=peak,
    )
    assert found.flops == (2**52 + 2, 2**52 + 5)
    assert found.peak_flops_per_second == peak
    assert not found.stop_requested
