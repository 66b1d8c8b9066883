"""Compare the lines and states of a replay with the run's metrics file and checkpoints.

run's record ──▶ lines of the steps    ──┐
replay's record ──▶ lines of the steps ──┼──▶ first difference, with its step ──▶ Verdict
reports of the ranks ──▶ states        ──┘
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from run_store.record.metrics_file import REPLAY_TOLERANCE
from run_store.record.metrics_lines import StepLine
from trainer.replay.rank_reports import RankStateReport
from trainer.replay.replay_report import Difference, Verdict
from transloom.observe.comparison.step_difference import EVERY_BIT, loss_difference, step_difference
from transloom.observe.replay.recorded_steps import RecordedSteps

MAX_DIFFERENCE = 1e300  # replaces infinity, which JSON cannot represent
# Bounds of the relative differences in a replay's first step. The bound for the gradient norm is
# larger: the norm is a root of a sum of squares, in which rounding errors hardly cancel.
AT_FIRST = {"loss": REPLAY_TOLERANCE, "nll": REPLAY_TOLERANCE, "grad_norm": 10 * REPLAY_TOLERANCE}
MAX_GROWTH = 100.0
# Upper limits of the bounds. In measurements, losses differed by up to 4 %. An NLL near 0 and a
# gradient norm may differ completely.
LARGEST = {"loss": 0.1, "nll": 1.0, "grad_norm": 1.0}


@dataclass(frozen=True)
class UnreadableData:
    """First step whose data can no longer be read from the dataset, and the reason."""

    step: int
    problem: str


@dataclass(frozen=True)
class ComparedState:
    """Comparison of weights and moments with a checkpoint, merged from the reports of the ranks.

    Attributes:
        tensors: number of compared tensors.
        different: the largest difference in each differing tensor, by "kind:parameter" in the order
            of the model; None if the difference is not finite.
        problem: reason why the tensors could not be compared; None if they were compared.
    """

    step: int
    tensors: int
    different: dict[str, float | None]
    problem: str | None = None

    @classmethod
    def of(
        cls, step: int, seen: Sequence[RankStateReport], order: Sequence[str]
    ) -> "ComparedState":
        """Merge the reports of the ranks.

        Args:
            step: the step of the checkpoint.
            seen: the reports of the ranks.
            order: the names of the model's parameters, in model order.
        """
        places = {name: place for place, name in enumerate(order)}
        different: dict[str, float | None] = {}
        for part in seen:
            for name, apart in part.different.items():
                before = different.get(name, 0.0)
                unknown = apart is None or before is None
                different[name] = None if unknown else max(apart or 0.0, before or 0.0)
        in_order = sorted(different, key=lambda name: (places[name.partition(":")[2]], name))
        return cls(
            step,
            len({name for part in seen for name in part.tensors}),
            {name: different[name] for name in in_order},
            next((part.problem for part in seen if part.problem), None),
        )


class RoundingBounds:
    """Maximum relative differences in the next step of a replay, by field of the step's line.

    If a replay need not be bit-identical, rounding causes a small first difference, and training
    amplifies it from step to step. The bound of a step is therefore `MAX_GROWTH` times the largest
    difference in the preceding steps. A manipulated record exceeds this bound.
    docs/benchmarks/exactness.md has the measured growth.
    """

    def __init__(self) -> None:
        self.by_field = dict(AT_FIRST)

    def add(self, recorded: StepLine, replayed: StepLine, unknown: Collection[str]) -> None:
        """Widen the bounds by the differences in a step that was within them.

        Args:
            recorded, replayed: the lines of the step in the run and in the replay.
            unknown: fields of the step whose valid value the run's metrics file lacks.
        """
        for field in AT_FIRST.keys() - unknown:
            then, now = (getattr(line, field, None) for line in (recorded, replayed))
            if then is not None and now is not None and then != now:
                grown = MAX_GROWTH * abs(then - now) / max(abs(then), abs(now))
                self.by_field[field] = min(max(self.by_field[field], grown), LARGEST[field])


def compare_replay(
    recorded: RecordedSteps,
    replayed: Mapping[int, StepLine],
    states: Iterable[ComparedState],
    promise: tuple[bool, str],
    unreadable: UnreadableData | None = None,
    ranks_for_bits: int | None = None,
) -> Verdict:
    """Compare all steps that were trained again, including steps before the requested ones.

    Args:
        recorded: the recorded steps of the run.
        replayed: the lines of the replay, by step.
        states: the comparisons of the replay's state with the run's checkpoints.
        promise: True if bits must be identical, and the reason; see `RecordedSteps.promise`.
        unreadable: the first step whose data could not be read; None if there is none.
        ranks_for_bits: see `RecordedSteps.ranks_for_bits`.
    """
    exact, words = promise
    bounds = None if exact else RoundingBounds()
    found: list[Difference] = []
    losses: list[float] = []
    other_losses = False
    for step in sorted(replayed.keys() & recorded.lines.keys()):
        then, now, unknown = recorded.lines[step], replayed[step], recorded.unknown_of(step)
        tolerances = bounds.by_field if bounds else EVERY_BIT
        losses.append(loss_difference(then, now))
        other_losses |= losses[-1] > tolerances.get("loss", 0.0)
        apart = step_difference(then, now, tolerances, unknown)
        if bounds and not apart:
            bounds.add(then, now, unknown)
        if apart:
            found.append(
                Difference(
                    step=step,
                    what=apart.what,
                    recorded=_plain(apart.first),
                    replayed=_plain(apart.second),
                )
            )
    compared = [state for state in states if not state.problem] if exact else []
    other_states = [state for state in compared if state.different]
    if unreadable:
        details = [unreadable.problem]
        found.append(Difference(step=unreadable.step, what="data", details=details))
    other_data = any(difference.what == "data" for difference in found)
    found += [
        Difference(step=state.step, what="state", details=list(state.different))
        for state in other_states
    ]
    largest = max(losses, default=0.0)
    other_losses |= any(d.what not in ("data", "state") for d in found)
    return Verdict(
        same=not found,
        promise=words,
        to_the_last_bit=exact,
        ranks_for_bits=ranks_for_bits,
        data="unreadable" if unreadable else "different" if other_data else "same",
        losses="different" if other_losses else "same" if losses else "not_compared",
        state="different" if other_states else "same" if compared else "not_compared",
        tensors=max((state.tensors for state in compared), default=0),
        state_steps=[state.step for state in compared],
        largest_difference=min(largest, MAX_DIFFERENCE),
        amplified_rounding=bool(bounds) and not found and largest > REPLAY_TOLERANCE,
        first_difference=min(found, key=lambda difference: difference.step, default=None),
    )


def _plain(value: object) -> object:
    """Convert infinity and NaN to text, which JSON can represent; return other values unchanged."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
