"""Describe the events of a run's metrics file in sentences."""

from collections.abc import Mapping
from typing import Any

from foundation.wording import counted, format_value, join_items
from run_store.record.metrics_lines import (
    CorruptionEvent,
    Event,
    RankHung,
    RankRecovered,
    Resized,
    Resumed,
    SkippedLine,
    SlowRankFound,
)

# Settings that change the rounding of results unless the run has `engine.numerics=exact`.
_COVERED_BY_EXACT = {"ranks", "zero_stage", "summation"}
# Entries of the numerics fingerprint that change more than the last digits of the losses.
_MORE_THAN_ROUNDING = {"precision", "dropout"}


def event_text(event: Event | SkippedLine) -> str:
    """Return a description of an event or of a skipped step."""
    if isinstance(event, SkippedLine):
        return f"not applied: {event.reason}"
    if isinstance(event, Resumed):
        return _resumed(event)
    if isinstance(event, Resized):
        text = f"Now trains on {counted(event.to_ranks, 'rank')} (before: {event.from_ranks})"
        return ". ".join(filter(None, (text, event.reason, event.promise))) + "."
    if isinstance(event, SlowRankFound):
        return (
            f"Slow: {event.name} needs {event.reason} ({event.seconds:.3g} s per step, the others "
            f"{event.other_seconds:.3g} s)."
        )
    if isinstance(event, RankRecovered):
        return f"No longer slow: {event.name} ({event.factor:.3g} times the time of the others)."
    if isinstance(event, CorruptionEvent):
        return f"{event.text[0].upper()}{event.text[1:]}."
    if isinstance(event, RankHung):
        return f"Hang: {event.text}."
    details = ", ".join(
        f"{key.replace('_', ' ')} {format_value(value)}"
        for key, value in event.details.items()
        if value
    )
    return f"{event.event.replace('_', ' ')}: {details}" if details else event.event


def _resumed(event: Resumed) -> str:
    if event.promise is None:  # the run had no checkpoint
        sentences = [f"Restarts from step {event.from_step}, without a checkpoint."]
    else:
        before, now = event.numerics_changed.get("ranks", (None, None))
        ranks = f" on {counted(now, 'rank')} (before: {before})" if before and now else ""
        sentences = [f"Continues from step {event.from_step}{ranks}.", _promise(event)]
    if event.settings_changed:
        sentences.append(f"Changed settings: {_changes(event.settings_changed)}.")
    if event.lost_steps:
        sentences.append(f"Steps trained again so far: {event.lost_steps:,}.")
    return " ".join(sentences)


def _promise(event: Resumed) -> str:
    """Describe which of data, losses and weights stay the same, and how to avoid a difference."""
    if event.quarantined:
        return f"Other data from here on, without {join_items(event.quarantined)}."
    if event.keeps_every_bit:
        return "Same data, and the same losses and weights to the last bit."
    changed = event.numerics_changed
    others = {name: values for name, values in changed.items() if name != "ranks"}
    because = f" ({_changes(others)})" if others else ""
    if changed.keys() & _MORE_THAN_ROUNDING:
        return f"Same data; losses differ{because}."
    remedy = "" if changed.keys() - _COVERED_BY_EXACT else " engine.numerics=exact avoids that."
    return f"Same data; losses may differ in the last digits{because}.{remedy}"


def _changes(changed: Mapping[str, list[Any]]) -> str:
    return join_items(
        f"{name} {format_value(then)} → {format_value(now)}"
        for name, (then, now) in changed.items()
    )
