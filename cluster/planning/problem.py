"""What is found wrong with a plan: one line, with both values and the remedy."""

from dataclasses import dataclass, field
from typing import Any, Literal

About = Literal["recipe", "dataset", "run", "disk", "memory", "GPUs", "versions", "cluster", "node"]


@dataclass(frozen=True)
class PlanProblem:
    """One thing that is wrong.

    Attributes:
        text: what is wrong, both values, and the remedy.
        refuses: whether the run cannot be trained like this; else it is only worth knowing.
        error: the error that training itself would end with, if it has one for this.
    """

    about: About
    text: str
    refuses: bool = True
    error: Exception | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"about": self.about, "problem": self.text, "refuses": self.refuses}
