"""Find the first difference between two lines of the same step.

The lines are from the metrics files of two runs, or of a run and its replay.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from run_store.record.facts import BY_NAME
from run_store.record.metrics_lines import SkippedLine, StepLine, TrainLine

# Compared fields in causal order: the data, the results computed from the data, the update.
# Messages name a field by its group, if it is listed here, or else by its title.
_GROUPS = {
    **dict.fromkeys(("data_digest", "target_tokens"), "data"),
    **dict.fromkeys(("loss", "nll", "other_sums"), "loss"),
}
_FIELDS = (*_GROUPS, "grad_norm", "cause", "slots", "learning_rate")
EVERY_BIT: Mapping[str, float] = {}
KIND = "whether the step counts"


class StepDifference(NamedTuple):
    """First difference between two lines: the name of the differing field, and both values."""

    what: str
    first: object
    second: object


def step_difference(
    first: StepLine,
    second: StepLine,
    tolerances: Mapping[str, float] = EVERY_BIT,
    unknown: Collection[str] = (),
) -> StepDifference | None:
    """Return the first difference between two lines of the same step; None if they agree.

    Args:
        tolerances: maximum relative differences of losses and gradient norms, by field. Values with
            a larger difference differ. Without tolerances, values must be equal to the last bit.
        unknown: fields that are not compared, because one of the lines lacks their true value.
    """
    for field in _FIELDS:
        values: list[Any] = [getattr(line, field, None) for line in (first, second)]
        if field == "target_tokens" and type(first) is not type(second):
            return StepDifference(KIND, _kind(first), _kind(second))
        if field in unknown or (field == "other_sums" and tolerances):
            continue
        tolerance = tolerances.get(field)
        if tolerance and None not in values and math.isclose(*values, rel_tol=tolerance):
            continue
        if values[0] != values[1]:
            return StepDifference(_GROUPS.get(field) or BY_NAME[field].title, *values)
    return None


def loss_difference(first: StepLine, second: StepLine) -> float:
    """Return the relative difference of a step's losses; 0 if one of the runs skipped the step.

    The difference is relative to the loss of `first`.
    """
    if not (isinstance(first, TrainLine) and isinstance(second, TrainLine)):
        return 0.0
    if first.loss == second.loss:
        return 0.0
    return abs(first.loss - second.loss) / abs(first.loss) if first.loss else math.inf


def _kind(line: StepLine) -> str:
    return "skipped" if isinstance(line, SkippedLine) else "applied"
