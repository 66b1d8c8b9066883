"""Detect hung ranks: ranks that make no progress within the deadline of their phase.

The input is each rank's last answer and reported progress, with their times. The output is an error
with the rank, its position, and the deadline that it exceeded.

Steps take nearly the same time, so the deadline of a step is derived from the durations of earlier
steps. A hang then costs seconds, instead of the minutes that the slowest permitted step may take.
Other phases use the configured deadlines. Waiting for data is a separate phase, so that a stall of
the storage does not end ranks.
"""

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.config import DeadlinesConfig
from cluster.errors import RankHungError
from run_store.record.vitals import Phase

# Phases of a step, in order; `start` comes before all steps.
_ORDER: tuple[Phase, ...] = ("start", "data", "step", "validation", "save", "done")

# The adaptive deadline of a step: a multiple of the median of the newest steps, within bounds.
MIN_STEP_SECONDS = 30.0
MEDIANS = 10
NEWEST_STEPS = 50
# Steps that complete before the deadline adapts. The first steps compile and allocate.
FIRST_STEPS = 10


@dataclass(frozen=True)
class Position:
    """Position of a rank in the training loop, as reported by the rank.

    Attributes:
        where: the coordinates of the rank's data, as text.
    """

    phase: Phase = "start"
    step: int = 0
    where: str = ""

    def __str__(self) -> str:
        data = f" ({self.where})" if self.where else ""
        return self.phase if self.phase == "start" else f"{self.phase} of step {self.step}{data}"

    @property
    def order(self) -> tuple[int, int]:
        return (-1 if self.phase == "start" else self.step, _ORDER.index(self.phase))


class HangDetector:
    """Detector of hung ranks, from each rank's position and the time of its last answer."""

    def __init__(self, deadlines: DeadlinesConfig, names: list[str], now: float) -> None:
        """Initialize the detector; the deadlines of all ranks start at `now`.

        Args:
            names: the ranks' names in messages.
        """
        self.positions = [Position() for _ in names]
        self._names = names
        self._deadlines = deadlines
        self._answered = [now] * len(names)
        self._moved = [now] * len(names)
        # Time since which all ranks have reached the position of the slowest ranks.
        self._slowest_position_since = now
        self._step_seconds: deque[float] = deque(maxlen=NEWEST_STEPS)
        self._count_slowest()

    def on_answer(self, rank: int, at: float) -> None:
        """Record the time of a heartbeat, which may be earlier than one recorded before."""
        self._answered[rank] = max(self._answered[rank], at)

    def on_progress(self, rank: int, position: Position, at: float) -> None:
        """Record a position with the time at which the rank reached it.

        The positions of one rank arrive in order; positions of different ranks may not.
        """
        before = self.positions[rank].order
        self.positions[rank] = position
        self._moved[rank] = max(self._moved[rank], at)
        if before != self._slowest_order or position.order == before:
            return
        self._slowest_ranks -= 1
        if self._slowest_ranks:
            return
        at = max(at, self._slowest_position_since)
        if before[1] == _ORDER.index("step"):
            self._step_seconds.append(at - self._slowest_position_since)
        self._slowest_position_since = at
        self._count_slowest()

    def silent_seconds(self, rank: int, now: float) -> float:
        """Return the seconds since the rank's last answer or progress report."""
        return max(0.0, now - max(self._answered[rank], self._moved[rank]))

    def hung(self, ranks: Iterable[int], now: float) -> RankHungError | None:
        """Return the error for a rank that has passed a deadline, or None if no rank has.

        Ranks wait for each other in collectives, so only the ranks at the earliest position can
        hang. Their deadline starts when the last of all ranks has reached this position. The error
        names the rank that has made no progress for the longest time.
        """
        ranks = list(ranks)
        silence = self._deadlines.answer_seconds
        for rank in ranks:
            if now - self._answered[rank] > silence:
                return RankHungError(
                    f"{self._names[rank]} has not answered for {silence:g} s, in phase "
                    f"{self.positions[rank]}. If its machine can be too busy to answer in time, "
                    "raise cluster.deadlines.answer_seconds"
                )
        hindmost = min(self.positions[rank].order for rank in ranks)
        behind = [rank for rank in ranks if self.positions[rank].order == hindmost]
        last = min(behind, key=lambda rank: self._moved[rank])
        waited = now - max(self._moved[last], self._slowest_position_since)
        if waited <= self._deadline(last):
            return None
        return RankHungError(
            f"{self._names[last]} hangs: it has been in phase {self.positions[last]} for "
            f"{waited:.0f} s{self._other_ranks_text(last, ranks)}. {self._remedy(last)}"
        )

    def _count_slowest(self) -> None:
        """Count the ranks at the earliest position, so that a report need not compare all ranks."""
        orders = [position.order for position in self.positions]
        self._slowest_order = min(orders)
        self._slowest_ranks = orders.count(self._slowest_order)

    def _deadline(self, rank: int) -> float:
        """Return the seconds that a rank may spend in its phase."""
        deadlines = self._deadlines
        by_phase: dict[Phase, float] = {
            "start": deadlines.start_seconds,
            "data": deadlines.step_seconds,
            "step": min(deadlines.step_seconds, self._adaptive_step_seconds()),
            "validation": deadlines.validation_seconds,
            "save": deadlines.save_seconds,
            "done": deadlines.save_seconds,
        }
        return by_phase[self.positions[rank].phase]

    def _adaptive_step_seconds(self) -> float:
        if not self._deadlines.adaptive_step or len(self._step_seconds) < FIRST_STEPS:
            return self._deadlines.step_seconds
        return max(MIN_STEP_SECONDS, MEDIANS * statistics.median(self._step_seconds))

    def _remedy(self, rank: int) -> str:
        deadline, phase = self._deadline(rank), self.positions[rank].phase
        if phase == "step" and deadline < self._deadlines.step_seconds:
            median = statistics.median(self._step_seconds)
            return (
                f"The deadline of {deadline:.3g} s was computed from the median of the last steps, "
                f"{median:.3g} s. If some steps can take longer than this deadline, set "
                "cluster.deadlines.adaptive_step=false"
            )
        return (
            "If this phase can take that long, raise cluster.deadlines."
            f"{_deadline_field(phase)}, which is {deadline:g} s"
        )

    def _other_ranks_text(self, last: int, ranks: list[int]) -> str:
        if len(ranks) == 1:
            return ""
        first = max(ranks, key=lambda rank: self.positions[rank].order)
        if self.positions[first].order == self.positions[last].order:
            return ", like all other ranks"
        return f", while others are in phase {self.positions[first]}"


def _deadline_field(phase: Phase) -> str:
    """Return the name of the setting that holds the deadline of a phase."""
    # In the phase "done", the rank writes the last checkpoint.
    names: dict[Phase, str] = {"data": "step", "done": "save"}
    return f"{names.get(phase, phase)}_seconds"
