"""Question of a learner, with the page's answer."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Question:
    """Question, its answer, and the box of the model's figure that it is about."""

    asked: str
    answer: str
    box: str


def length(row: Tensor) -> float:
    """Return the Euclidean length of a vector."""
    return row.norm().item()
