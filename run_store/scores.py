"""Scores of a validation by name, and whether more or less of each is better."""

from collections.abc import Mapping

from foundation.file_model import Count, FileModel
from foundation.tasks import DEFAULT_TASK, TASKS

# Measures of a translation; True if a greater value is better.
MORE_IS_BETTER = TASKS[DEFAULT_TASK].scores


class Score(FileModel):
    """Value of one measure in a validation.

    Attributes:
        value: the measure's value; None if it is not finite.
        more_is_better: whether a greater value is better.
        decoding: the search that generated the scored texts, such as "greedy". None if no texts
            were generated, or if an early version of transloom recorded the score without the
            search.
    """

    value: float | None = None
    more_is_better: bool
    decoding: str | None = None

    @property
    def cost(self) -> float | None:
        """Value for which less is always better: negated if more is better; None if not finite."""
        return -self.value if self.more_is_better and self.value is not None else self.value

    def is_better_than(self, best: float | None) -> bool:
        """Return whether the score is better than `best`, an earlier value of the same measure.

        If `best` is None, there is no earlier value, so any finite score is better. A score that is
        not finite is never better.
        """
        if self.value is None:
            return False
        return best is None or (self.value > best if self.more_is_better else self.value < best)


Scores = dict[str, Score]


class BestScore(FileModel):
    """Best value of a measure, the step of its validation, and the decoding of its texts."""

    value: float
    step: Count
    decoding: str | None = None


def keep_best(best: dict[str, BestScore], scores: Scores, step: int) -> None:
    """Replace the best score of each measure that a validation has improved."""
    for name, score in scores.items():
        before = best[name].value if name in best else None
        if score.value is not None and score.is_better_than(before):
            best[name] = BestScore(value=score.value, step=step, decoding=score.decoding)


def scores_of(
    values: Mapping[str, float | None], more_is_better: Mapping[str, bool] = MORE_IS_BETTER
) -> Scores:
    """Return the scores with these values, by the name of the measure.

    By default, the measures are those of a translation.
    """
    return {
        name: Score(value=value, more_is_better=more_is_better[name])
        for name, value in values.items()
    }
