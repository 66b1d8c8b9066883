"""Scores of a validation in words."""

_NAMES = {"bleu": "BLEU"}
_DECIMALS = {"loss": 3, "perplexity": 2, "bleu": 1}


def score_name(measure: str) -> str:
    """A measure's name in messages."""
    return _NAMES.get(measure, measure)


def score_text(measure: str, value: float | None) -> str:
    """A measure with its value; None means that the value is not finite."""
    name = score_name(measure)
    return f"{name} is not finite" if value is None else f"{name} {score_value(measure, value)}"


def score_value(measure: str, value: float) -> str:
    """A value with as many decimals as are usual for the measure."""
    return f"{value:.{_DECIMALS.get(measure, 3)}f}"
