"""Registry of scores of texts, which validations compute in addition to a task's scores.

An extension registers them. A recipe selects them in `trainer.validation_scores`:

    def exact_matches(made, expected):
        return 100 * sum(map(eq, made, expected)) / len(made)

    SCORES.register("exact_matches", ScoreKind(exact_matches, more_is_better=True))
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from foundation.registry import Registry


@dataclass(frozen=True)
class ScoreKind:
    """Registered score of texts.

    Attributes:
        of: the function that computes the score from the generated and the expected texts, which
            are two lists of equal length. The score must depend only on these texts, because each
            rank computes it independently.
        more_is_better: whether a greater score is better.
    """

    of: Callable[[Sequence[str], Sequence[str]], float]
    more_is_better: bool


SCORES = Registry[ScoreKind]("score", "trainer.validation_scores")
