"""Format scores of a validation as text."""

from run_store.scores import Score

_NAMES = {"bleu": "BLEU"}
_DECIMALS = {"loss": 3, "perplexity": 2, "bleu": 1}


def score_name(measure: str) -> str:
    """Return a measure's name for messages."""
    return _NAMES.get(measure, measure)


def score_heading(measure: str, decoding: str | None) -> str:
    """Return a measure's name, with the decoding that produced the scored texts."""
    return score_name(measure) + (f" ({decoding})" if decoding else "")


def score_text(measure: str, score: Score) -> str:
    """Return a measure with its value and decoding, such as "BLEU 31.2 (greedy)"."""
    name, value = score_name(measure), score.value
    text = f"{name} is not finite" if value is None else f"{name} {score_value(measure, value)}"
    return text + (f" ({score.decoding})" if score.decoding else "")


def score_value(measure: str, value: float) -> str:
    """Return a value with the number of decimals that is usual for the measure."""
    return f"{value:.{_DECIMALS.get(measure, 3)}f}"
