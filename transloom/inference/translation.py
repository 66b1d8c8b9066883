"""Translation of a sentence, and a function that joins the translations of a sentence's parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from model.generation.search import length_penalty


@dataclass(frozen=True)
class Translation:
    """Translation with its score and its token ids, without EOS.

    The score is the log-probability (nats) divided by the length penalty.
    """

    text: str
    score: float
    ids: tuple[int, ...]


def joined(parts: Sequence[Translation], alpha: float) -> Translation:
    """Join the translations of a sentence's parts with spaces.

    The joined score is the sum of the parts' log-probabilities, divided by the length penalty of
    the total length.

    Args:
        alpha: exponent of the length penalty.
    """
    if len(parts) == 1:
        return parts[0]
    lengths = [len(part.ids) + 1 for part in parts]  # EOS included
    log_probability = sum(
        part.score * length_penalty(length, alpha)
        for part, length in zip(parts, lengths, strict=True)
    )
    return Translation(
        " ".join(part.text for part in parts if part.text),
        log_probability / length_penalty(sum(lengths), alpha),
        tuple(token for part in parts for token in part.ids),
    )
