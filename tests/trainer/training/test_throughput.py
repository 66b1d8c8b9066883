"""Operations of a step in its line: the same for any number of ranks, and their rates."""

import pytest
import torch
from support.ranks.engine_jobs import VOCABULARY, micro_batch
from support.records.lines import train_line

from model.flops import Flops
from trainer.rank.placement import Placement
from trainer.record.records import parse_line
from trainer.tasks.batch import to_device
from trainer.training.step_exchange import StepReport, exchange
from trainer.training.throughput import throughput
from trainer.zero.engine import PassResult

RANKS = 4


def report(flops, peak):
    return StepReport([1.0], [], 0.0, [], 0.0, False, flops=flops, peak_flops_per_second=peak)


def test_rates_are_those_of_the_model_of_all_ranks_and_of_each():
    fields = throughput(report(Flops(6 * 10**12, 8 * 10**12), 12e12), 2.0, RANKS)
    assert fields == {
        "model_flops": 6 * 10**12,
        "hardware_flops": 8 * 10**12,
        "tflops_per_second": 3.0,
        "tflops_per_second_per_rank": 0.75,
        "mfu": 0.25,
    }
    line = train_line(1, **fields)
    assert parse_line(line.to_json().encode()) == line


def test_without_a_peak_there_is_no_mfu_and_without_a_count_nothing():
    assert throughput(report(Flops(10, 10), None), 1.0, 1)["mfu"] is None
    assert throughput(report(None, 1e12), 1.0, 1) == {}
    assert "flops" not in train_line(1).to_json()


@pytest.mark.parametrize("peak", [None, 5e12])
def test_an_exchange_sums_operations_to_the_last_one(peak):
    """A step of a large network has more than fp32 can tell apart."""
    batches = [to_device(micro_batch(1, slot), VOCABULARY, torch.device("cpu")) for slot in (0, 1)]
    counted = [Flops(2**52 - 1, 2**52), Flops(3, 5)]
    batches = [
        type(batch)(batch.inputs, batch.digest, batch.padding, batch.positions, flops)
        for batch, flops in zip(batches, counted, strict=True)
    ]
    result = PassResult(torch.ones(1), torch.tensor(True))
    found = exchange(
        range(2),
        batches,
        [result, result],
        micro_batches_per_step=2,
        data_stall_seconds=0.0,
        stop_requested=False,
        placement=Placement(),
        peak_flops_per_second=peak,
    )
    assert found.flops == (2**52 + 2, 2**52 + 5)
    assert found.peak_flops_per_second == peak
    assert not found.stop_requested
