"""What differs first in two lines of the same step: of two runs, or of a run and its replay."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from trainer.record.metrics_lines import SkippedLine, StepLine, TrainLine

# In the order in which one follows from the other: data, what is made of it, the update.
_FIELDS = (
    ("data_digest", "data"),
    ("target_tokens", "data"),
    ("loss", "loss"),
    ("nll", "loss"),
    ("other_sums", "loss"),
    ("grad_norm", "gradient norm"),
    ("slots", "slots that are not finite"),
    ("learning_rate", "learning rate"),
)
EVERY_BIT: Mapping[str, float] = {}
KIND = "whether the step counts"


class StepDifference(NamedTuple):
    """The first thing in which two lines differ, and both of its values."""

    what: str
    first: object
    second: object


def step_difference(
    first: StepLine,
    second: StepLine,
    tolerances: Mapping[str, float] = EVERY_BIT,
    unknown: Collection[str] = (),
) -> StepDifference | None:
    """Return what differs first, or None if nothing does.

    Args:
        tolerances: relative differences up to which losses and gradient norms are the same, by
            field.
        unknown: fields that one of the lines does not really tell.
    """
    for field, what in _FIELDS:
        values: list[Any] = [getattr(line, field, None) for line in (first, second)]
        if field == "target_tokens" and type(first) is not type(second):
            return StepDifference(KIND, _kind(first), _kind(second))
        if field in unknown or (field == "other_sums" and tolerances):
            continue
        tolerance = tolerances.get(field)
        if tolerance and None not in values and math.isclose(*values, rel_tol=tolerance):
            continue
        if values[0] != values[1]:
            return StepDifference(what, *values)
    return None


def loss_difference(first: StepLine, second: StepLine) -> float:
    """Between the losses of a step, relative to the first; 0 if one was skipped."""
    if not (isinstance(first, TrainLine) and isinstance(second, TrainLine)):
        return 0.0
    if first.loss == second.loss:
        return 0.0
    return abs(first.loss - second.loss) / abs(first.loss) if first.loss else math.inf


def _kind(line: StepLine) -> str:
    return "skipped" if isinstance(line, SkippedLine) else "applied"
