"""Problems of a plan: one line each, with both values and the remedy."""

from dataclasses import dataclass, field
from typing import Any, Literal

About = Literal["recipe", "dataset", "run", "disk", "memory", "GPUs", "versions", "cluster", "node"]


@dataclass(frozen=True)
class PlanProblem:
    """One problem of a plan.

    Attributes:
        text: the problem, both values, and the remedy.
        refuses: whether the run cannot be trained like this; otherwise the problem is a warning.
        error: the error that training itself would raise, or None if it would raise none.
    """

    about: About
    text: str
    refuses: bool = True
    error: Exception | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"about": self.about, "problem": self.text, "refuses": self.refuses}
