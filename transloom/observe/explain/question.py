"""A question of learners, as the page answers it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the box of the model's figure that it is about."""

    asked: str
    answer: str
    box: str


def length(row: Tensor) -> float:
    """The Euclidean length of a row of numbers."""
    return row.norm().item()
