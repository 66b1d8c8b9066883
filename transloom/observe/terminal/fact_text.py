"""Format the facts of a run as text for a terminal."""

from collections.abc import Callable, Mapping
from typing import Any

from foundation.wording import span
from run_store.record.facts import Fact, Format, Place, facts_for
from run_store.record.run_status_model import LossForm

_FORMATS: Mapping[Format, Callable[[Any], str]] = {
    "number": "{:.3g}".format,
    "seconds": "{:.3g} s".format,
    "whole": "{:,.0f}".format,
    "rate": "{:,.0f}".format,
    "loss": "{:.3f}".format,
    "power": "{:.2e}".format,
    "percent": "{:.1%}".format,
    "span": span,
    "text": lambda name: name.replace("_", " "),
}


def values_at(place: Place, value_of: Callable[[Fact], Any]) -> dict[Fact, Any]:
    """Return the known values of the facts that a place shows.

    If the recipe minimises the NLL itself, loss and NLL are equal, and only the loss is returned.
    """
    values = {fact: value_of(fact) for fact in facts_for(place)}
    known = {fact: value for fact, value in values.items() if value is not None}
    by_name = {fact.name: value for fact, value in known.items()}
    is_nll = by_name.get("loss") == by_name.get("nll")
    return {fact: value for fact, value in known.items() if not (is_nll and fact.name == "nll")}


def plain(fact: Fact, value: Any) -> str:
    """Return a value of a single step as text."""
    return _FORMATS[fact.format](value)


def current(fact: Fact, value: Any, form: LossForm) -> str:
    """Return the current value of a fact as text, with its unit."""
    if fact.current == "share":
        return f"{value:.1%} of the time of recent steps"
    unit = "" if fact.format in ("percent", "span") else fact.unit_of(form)
    return f"{plain(fact, value)} {unit}".rstrip()


def step_text(fact: Fact, value: Any, form: LossForm) -> str:
    """Return the title and a step's value; the unit only if the title does not suggest it."""
    unit = f" {fact.unit_of(form)}" if fact.format == "rate" else ""
    return f"{fact.title_of(form)} {plain(fact, value)}{unit}"


def step_summary(value_of: Callable[[Fact], Any], form: LossForm) -> str:
    """Return the text of all facts that a line about a step shows."""
    values = values_at("progress", value_of)
    return "  ".join(step_text(fact, value, form) for fact, value in values.items())
