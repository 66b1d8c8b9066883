"""Scores of a model on a held-out set, by name; each says which direction is better.

An extension adds one to those that a task has by itself, and a recipe names it in
`trainer.validation_scores`:

    def exact_matches(made, expected):
        return 100 * sum(map(eq, made, expected)) / len(made)

    SCORES.register("exact_matches", ScoreKind(exact_matches, more_is_better=True))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from foundation.registry import Registry
from foundation.file_model import FileModel

# The measures of a translation, each with whether more is better.
MORE_IS_BETTER = {"loss": False, "perplexity": False, "bleu": True}


class Score(FileModel):
    """One measure of a validation.

    Attributes:
        value: the measure's value; None if it is not finite.
        decoding: the search that made the scored texts, such as "greedy"; None if the score is
            not one of searched texts, or if the version that recorded it did not say.
    """

    value: float | None = None
    more_is_better: bool
    decoding: str | None = None

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


class BestScore(FileModel):
    """The best value of a measure, the step of its validation, and the decoding of its texts."""

    value: float
    step: int
    decoding: str | None = None


def keep_best(best: dict[str, BestScore], scores: Scores, step: int) -> None:
    """Replace the best score of each measure that a validation has improved."""
    for name, score in scores.items():
        before = best[name].value if name in best else None
        if score.value is not None and score.is_better_than(before):
            best[name] = BestScore(value=score.value, step=step, decoding=score.decoding)


def scores_of(values: Mapping[str, float | None]) -> Scores:
    """The scores of a translation with these values, by the measure's name."""
    return {
        name: Score(value=value, more_is_better=MORE_IS_BETTER[name])
        for name, value in values.items()
    }


@dataclass(frozen=True)
class ScoreKind:
    """A score of texts.

    Attributes:
        of: the score of what was made, given what was expected, a text for each held-out example.
            It must follow from these alone, as each rank works it out for itself.
    """

    of: Callable[[Sequence[str], Sequence[str]], float]
    more_is_better: bool


SCORES = Registry[ScoreKind]("score", "trainer.validation_scores")
