"""Detection of ranks that are slower than the others, from the times that the exchange collects.

::

    time of a rank   compute seconds, scaled to the mean work of a rank, and waiting for data
    ratio            time of a rank / median of the times of the other ranks, in each step
    factors          medians of the ratios in the two halves of the last WINDOW steps

    normal ── both factors > SLOW_FACTOR ──▶ slow ── both factors < NORMAL_FACTOR ──▶ normal

Work is measured in executed operations, because the micro-batches of a step have different lengths,
and some ranks have one slot more than others. Still, the time per operation depends on the length,
and some steps stall. Medians ignore such steps. One stalled step would raise a mean, and one fast
step would end a sequence of consecutive slow steps. A rank is reported only when both halves are
slow. By then the newer half as a whole is slow, so normal steps do not lower its factor.

Only rank 0 does this, and only for messages and the metrics file. A new attempt starts with an
empty window, because its ranks may be on other nodes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from run_store.record.metrics_lines import RankRecovered, SlowRankFound, SlowRankState
from trainer.process.placement import Placement
from trainer.registries.callbacks import ObservedStep, RankTimes, StepObserver
from trainer.tracking.recorder_protocol import RecorderProtocol

WINDOW = 50  # number of steps; even, because the window has two halves
SLOW_FACTOR = 1.3
# A rank is normal again when its factors in both halves of the window are below this value. If the
# limit were SLOW_FACTOR, a rank near it would be reported repeatedly.
NORMAL_FACTOR = 1.15
MAX_NAMED = 8  # maximum number of slow ranks in the line of a step


class SlowRanks(StepObserver):
    """Observer that records the times of the ranks, and ranks that become slow or normal.

    Only rank 0 does this.
    """

    def __init__(self, placement: Placement, recorder: RecorderProtocol) -> None:
        self._rank = placement.rank
        self._recorder = recorder
        self._detector = SlowRankDetector(placement.node_names)
        self._times: RankTimes | None = None  # times of the step whose line is being recorded

    @contextmanager
    def around(self, step: int) -> Iterator[None]:
        yield
        if self._times is None:
            return
        times, self._times = self._times, None
        for event in self._detector.add(times, self._recorder.last_step):
            self._recorder.append(event)

    def after_step(self, view: ObservedStep) -> dict[str, Any]:
        if self._rank or view.rank_times is None:
            return {}
        if view.is_interrupted:
            self._detector.skip_next_step()
        self._times = view.rank_times
        if view.gradient_norm is None:
            return {}
        return time_fields(view.rank_times) | {"slow_ranks": self._detector.slow_ranks}


def time_fields(times: RankTimes) -> dict[str, Any]:
    """Return the fields of a `TrainLine` that compare the ranks, except `slow_ranks`."""
    longest = times.compute.max()
    return {
        "compute_imbalance": _rounded(1 - times.compute.mean() / longest) if longest else 0.0,
        "compute_seconds_min": _rounded(times.compute.min()),
        "compute_seconds_median": _rounded(np.median(times.compute)),
        "compute_seconds_max": _rounded(longest),
        "compute_slowest_rank": int(times.compute.argmax()),
        "data_stall_seconds_median": _rounded(np.median(times.data)),
        "data_stall_seconds_max": _rounded(times.data.max()),
        "data_slowest_rank": int(times.data.argmax()),
        "wait_seconds": _rounded(times.wait.mean()),
    }


class SlowRankDetector:
    """Detector of slow ranks during one attempt."""

    def __init__(self, node_names: Sequence[str] = ()) -> None:
        """Create a detector that has seen no step.

        Args:
            node_names: the name of each rank's node; empty if they are unknown.
        """
        self._nodes = node_names
        # [WINDOW, ranks], with step n of the attempt in row n modulo WINDOW.
        self._ratios = self._own = self._others = self._excess = np.empty((0, 0))
        self._steps = 0
        self._newer = np.empty(0, int)  # the rows of the newer half
        self._factors = np.empty(0)  # factors of the newer half, by rank
        self._slow: dict[int, SlowRankState] = {}
        self._skips_next = True  # the first step of an attempt allocates memory

    def skip_next_step(self) -> None:
        """Ignore the next step, because other work, such as a checkpoint, affects its times."""
        self._skips_next = True

    def add(self, times: RankTimes, step: int) -> list[SlowRankFound | RankRecovered]:
        """Add the times of a step; return events for ranks that became slow or normal.

        Args:
            times: the times of all ranks.
            step: the number of the step, for the events.
        """
        if self._skips_next:
            self._skips_next = False
            return []
        self._remember(times)
        if self._steps < WINDOW:
            return []
        rows = np.arange(self._steps - WINDOW, self._steps) % WINDOW
        older, self._newer = np.split(rows, 2)
        self._factors = np.median(self._ratios[self._newer], axis=0)
        before = np.median(self._ratios[older], axis=0)
        events: list[SlowRankFound | RankRecovered] = []
        for rank in np.flatnonzero(np.minimum(self._factors, before) > SLOW_FACTOR).tolist():
            if rank not in self._slow:
                state = self._slow[rank] = self._state(rank)
                seconds = {
                    "seconds": _rounded(np.median(self._own[self._newer, rank])),
                    "other_seconds": _rounded(np.median(self._others[self._newer, rank])),
                }
                events.append(SlowRankFound(step=step, **state.model_dump(), **seconds))
        for rank in list(self._slow):
            state = self._slow[rank] = self._state(rank)
            if max(self._factors[rank], before[rank]) < NORMAL_FACTOR:
                del self._slow[rank]
                events.append(
                    RankRecovered(step=step, **state.model_dump(include={"rank", "node", "factor"}))
                )
        return events

    @property
    def slow_ranks(self) -> list[SlowRankState] | None:
        """The slow ranks, slowest first, at most `MAX_NAMED`; None if there is none."""
        by_factor = sorted(self._slow.values(), key=lambda state: -state.factor)
        return by_factor[:MAX_NAMED] or None

    def _remember(self, times: RankTimes) -> None:
        compute = times.equal_compute
        own = compute + times.data
        others = median_of_others(own)
        # Positive if data delays the rank more than computing does, compared with the others.
        excess = (times.data - median_of_others(times.data)) - (compute - median_of_others(compute))
        ratios = np.divide(own, others, out=np.ones_like(own), where=others > 0)
        if not self._steps:
            self._ratios, self._own, self._others, self._excess = np.empty((4, WINDOW, len(own)))
        place = self._steps % WINDOW
        for kept, values in (
            (self._ratios, ratios),
            (self._own, own),
            (self._others, others),
            (self._excess, excess),
        ):
            kept[place] = values
        self._steps += 1

    def _state(self, rank: int) -> SlowRankState:
        excess = np.median(self._excess[self._newer, rank])
        return SlowRankState(
            rank=rank,
            node=self._nodes[rank] if rank < len(self._nodes) else None,
            cause="data" if excess > 0 else "compute",
            factor=round(float(self._factors[rank]), 3),
        )


def median_of_others(values: np.ndarray) -> np.ndarray:
    """Return, for each value, the median of all other values.

    Args:
        values: at least two values.
    """
    count, order = len(values) - 1, np.argsort(values, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ranked = values[order]

    def other(index: int) -> np.ndarray:
        """Return, for each value, the value at this index among the other values, sorted."""
        return ranked[np.where(index < place, index, index + 1)]

    return (other((count - 1) // 2) + other(count // 2)) / 2


def _rounded(seconds: float) -> float:
    """Round to microseconds, because each digit is stored in each line."""
    return round(float(seconds), 6)
