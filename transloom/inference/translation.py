"""A translation, and how those of a sentence's parts are joined."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.generation.search import length_penalty


@dataclass(frozen=True)
class Translation:
    """A translation, its score, and the ids of its tokens, without EOS.

    The score is the log-probability (nats) over the length penalty.
    """

    text: str
    score: float
    ids: tuple[int, ...]


def joined(parts: Sequence[Translation], alpha: float) -> Translation:
    """The translations of a sentence's parts as one, with a space between.

    Its log-probability is the sum of theirs, and is divided by the penalty of its length.

    Args:
        alpha: the exponent of the length penalty.
    """
    if len(parts) == 1:
        return parts[0]
    lengths = [len(part.ids) + 1 for part in parts]  # with EOS
    log_probability = sum(
        part.score * length_penalty(length, alpha)
        for part, length in zip(parts, lengths, strict=True)
    )
    return Translation(
        " ".join(part.text for part in parts if part.text),
        log_probability / length_penalty(sum(lengths), alpha),
        tuple(token for part in parts for token in part.ids),
    )
