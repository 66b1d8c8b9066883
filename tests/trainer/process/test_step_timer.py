"""Compute time of a rank and its time waiting for other ranks, in each ZeRO stage."""

import time

import pytest
import torch
from support.ranks import slow_jobs
from support.ranks.engine_jobs import Shape

from trainer.process.placement import Placement
from trainer.process.step_timer import StepTimer

TWO = Placement(world_size=2)
# Stage 3 gathers weights in each layer, asynchronously; stage 1 in bf16 sums gradients without
# DeepSpeed.
SHAPES = [Shape(0), Shape(1), Shape(1, "bf16"), Shape(2), Shape(3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_rank_that_waits_for_another_has_no_compute_time(rank_pools, shape, tmp_path):
    fast, slow = rank_pools(2).run(slow_jobs.times_of_steps, shape, 1, 8.0, tmp_path)
    assert fast == (0.0, 8.0)
    assert slow == (8.0, 0.0)


class Clock:
    """Clock with a time that the test sets."""

    def __init__(self):
        self.moment = 0.0

    def now(self):
        return self.moment

    def seconds(self, start, end):
        return end - start


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timer(clock):
    timer = StepTimer(TWO)
    timer._clock = clock
    return timer


def test_waits_are_excluded_from_compute_time_and_counted_once(timer, clock):
    with timer.step():
        with timer.wait():  # the exchange of the previous step
            clock.moment += 2
        clock.moment += 100  # the optimizer's update
        with timer.compute():
            clock.moment += 4
        with timer.compute():
            clock.moment += 8
            with timer.wait(), timer.wait():
                clock.moment += 16
            clock.moment += 32
            with timer.wait():
                clock.moment += 64
    assert timer.take() == ([4, 40], 2 + 16 + 64)
    assert timer.take() == ([], 0)


def test_an_error_in_a_collective_leaves_the_timer_usable(timer, clock):
    with pytest.raises(OSError, match="lost"), timer.step(), timer.wait():
        raise OSError("the connection is lost")
    with timer.step(), timer.wait():
        clock.moment += 2
    assert timer.take() == ([], 2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_single_ranks_and_work_outside_of_steps_are_not_measured(device):
    """No CUDA event is created, so this needs no GPU."""
    for timer in (StepTimer(Placement(device=device)), StepTimer(Placement(1, 2, device=device))):
        if timer._is_needed:
            with timer.compute(), timer.wait():
                pass
        else:
            with timer.step(), timer.compute(), timer.wait():
                pass
        assert timer.take() == ([], 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_events_measure_the_stream_and_not_the_host():
    timer = StepTimer(Placement(world_size=2, device="cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    matrix @ matrix  # initializes cuBLAS
    torch.cuda.synchronize()
    with timer.step(), timer.compute():
        for _ in range(20):
            matrix @ matrix
        with timer.wait():
            for _ in range(20):
                matrix @ matrix
        enqueued = time.monotonic()
    torch.cuda.synchronize()
    busy = time.monotonic() - enqueued
    seconds = timer.take()
    assert seconds.compute[0] == pytest.approx(seconds.wait, rel=0.5)
    assert seconds.compute[0] + seconds.wait > 0.5 * busy
