"""How good a model is on a held-out set: scores by name, each with which way is better."""

from data_pipeline.written import Written


class Score(Written):
    """One measure of a validation.

    Attributes:
        value: None if it is no finite number.
    """

    value: float | None = None
    more_is_better: bool

    @property
    def cost(self) -> float | None:
        """The value, turned so that less is better."""
        return -self.value if self.more_is_better and self.value is not None else self.value

    def is_better_than(self, best: float | None) -> bool:
        """Whether it beats a value of the same measure; None stands for no value so far."""
        if self.value is None:
            return False
        return best is None or (self.value > best if self.more_is_better else self.value < best)


Scores = dict[str, Score]
