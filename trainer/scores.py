"""Scores of a model on a held-out set, by name; each says which direction is better."""

from collections.abc import Mapping

from data_pipeline.written import Written

# The measures of a translation, each with whether more is better.
MORE_IS_BETTER = {"loss": False, "perplexity": False, "bleu": True}


class Score(Written):
    """One measure of a validation.

    Attributes:
        value: the measure's value; None if it is not finite.
    """

    value: float | None = None
    more_is_better: bool

    @property
    def cost(self) -> float | None:
        """The value, with the sign with which less is better."""
        return -self.value if self.more_is_better and self.value is not None else self.value

    def is_better_than(self, best: float | None) -> bool:
        """Whether the score beats a value of the same measure; None stands for no value so far."""
        if self.value is None:
            return False
        return best is None or (self.value > best if self.more_is_better else self.value < best)


Scores = dict[str, Score]


def scores_of(values: Mapping[str, float | None]) -> Scores:
    """The scores of a translation with these values, by the measure's name."""
    return {
        name: Score(value=value, more_is_better=MORE_IS_BETTER[name])
        for name, value in values.items()
    }
