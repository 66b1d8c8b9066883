"""Problems of a plan: one line each, with the actual value, the expected value and the remedy."""

from dataclasses import dataclass, field
from typing import Any, Literal

About = Literal["recipe", "dataset", "run", "disk", "memory", "GPUs", "versions", "cluster", "node"]


@dataclass(frozen=True)
class PlanProblem:
    """One problem of a plan.

    Attributes:
        text: the problem, the actual and the expected value, and the remedy.
        refuses: whether the problem prevents training; otherwise the problem is a warning.
        error: the error that training would raise because of the problem, or None.
    """

    about: About
    text: str
    refuses: bool = True
    error: Exception | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"about": self.about, "problem": self.text, "refuses": self.refuses}
