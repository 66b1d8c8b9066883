"""When a rank that makes no progress is taken for hung.

In: when each rank answered, and what it reported of its progress. Out: the error that names the
rank, where it stands, and the deadline that has passed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.config import DeadlinesConfig
from cluster.errors import RankHungError
from trainer.runs.vitals import Phase

# Phases of a step, in order; `start` comes before all steps.
_ORDER: tuple[Phase, ...] = ("start", "step", "validation", "save", "done")


@dataclass(frozen=True)
class Position:
    """Where a rank stands, by its own report.

    Attributes:
        where: the coordinates of its data, in words.
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
    """The ranks of a group, each with its position and when it was last heard of."""

    def __init__(self, deadlines: DeadlinesConfig, names: list[str], now: float) -> None:
        """
        Args:
            names: the ranks' names in messages.
        """
        self.positions = [Position() for _ in names]
        self._names = names
        self._deadlines = deadlines
        self._answered = [now] * len(names)
        self._moved = [now] * len(names)

    def answered(self, rank: int, now: float) -> None:
        self._answered[rank] = now

    def moved(self, rank: int, position: Position, now: float) -> None:
        self.positions[rank] = position
        self._moved[rank] = now

    def silent_seconds(self, rank: int, now: float) -> float:
        """Since the rank's last sign of life."""
        return max(0.0, now - max(self._answered[rank], self._moved[rank]))

    def hung(self, ranks: Iterable[int], now: float) -> RankHungError | None:
        """The error that names a rank which has passed a deadline; None if none has.

        Ranks wait for each other in collectives. So the deadline is that of the ranks that are
        behind the others, and the error names the one of them that has stood still longest.
        """
        ranks = list(ranks)
        silence = self._deadlines.answer_seconds
        for rank in ranks:
            if now - self._answered[rank] > silence:
                return RankHungError(
                    f"{self._names[rank]} has not answered for {silence:g} s, in phase "
                    f"{self.positions[rank]}. If its machine may be as busy as that, raise "
                    "cluster.deadlines.answer_seconds"
                )
        hindmost = min(self.positions[rank].order for rank in ranks)
        behind = [rank for rank in ranks if self.positions[rank].order == hindmost]
        last = min(behind, key=lambda rank: self._moved[rank])
        if now - self._moved[last] <= self._patience(last):
            return None
        phase = self.positions[last].phase
        return RankHungError(
            f"{self._names[last]} hangs: it has been in phase {self.positions[last]} for "
            f"{now - self._moved[last]:.0f} s{self._the_others(last, ranks)}. If it may take so "
            f"long, raise cluster.deadlines.{_setting(phase)}, which is "
            f"{self._patience(last):g}"
        )

    def _patience(self, rank: int) -> float:
        deadlines = self._deadlines
        patience: dict[Phase, float] = {
            "start": deadlines.start_seconds,
            "step": deadlines.step_seconds,
            "validation": deadlines.validation_seconds,
            "save": deadlines.save_seconds,
            "done": deadlines.save_seconds,
        }
        return patience[self.positions[rank].phase]

    def _the_others(self, last: int, ranks: list[int]) -> str:
        if len(ranks) == 1:
            return ""
        first = max(ranks, key=lambda rank: self.positions[rank].order)
        if self.positions[first].order == self.positions[last].order:
            return ", as all ranks have"
        return f", while others are in phase {self.positions[first]}"


def _setting(phase: Phase) -> str:
    """The deadline that holds in a phase; a rank that is done still writes its last checkpoint."""
    return f"{'save' if phase == 'done' else phase}_seconds"
