"""Convert a `RunPicture` to blocks of rows, the most important ones first.

Colours only add emphasis: words describe every problem, too.
"""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from foundation.untrusted_text import visible_line
from foundation.wording import counted, span, steps_of
from trainer.record.facts import BY_NAME, Fact, facts_for
from trainer.record.metrics_lines import SkippedLine
from transloom.observe.terminal.fact_text import plain, values_at
from transloom.observe.terminal.picture_layout import (
    DONE,
    LABEL,
    TO_DO,
    Block,
    Picture,
    Row,
    fitted,
    listed,
    row,
)
from transloom.observe.terminal.picture_processes import processes
from transloom.observe.terminal.run_picture import RunPicture
from transloom.observe.terminal.scores import score_heading, score_name, score_value
from transloom.observe.terminal.tables import STATE_STYLES
from transloom.observe.terminal.time_format import clock

VALUE = 10
WIDEST_CURVE = 120
REMARK = 26  # columns kept free to the right of a curve for a remark
SLOW_RANKS = 4  # shown at most
# A run is reported as waiting if its last step is older than this many seconds, and also older than
# the usual duration of this many steps.
LONG_STEP_SECONDS = 60.0
LONG_STEPS = 5
BLOCKS = "▁▂▃▄▅▆▇█"


def drawn(picture: RunPicture) -> Picture:
    """Return the picture of a run for a terminal of any size."""
    return Picture(
        lambda console, width, height: fitted(blocks_of(picture, width), console, width, height)
    )


def blocks_of(picture: RunPicture, width: int, now: float | None = None) -> list[Block]:
    """Return all blocks of a run's picture, from top to bottom.

    Args:
        width: the width of the terminal in cells.
        now: the current time in seconds since the epoch; None reads the clock.
    """
    now = time.time() if now is None else now
    notices = [
        row((f"{clock(entry.time)}  ", "dim"), entry.text.split("\n")[0])
        for entry in reversed(picture.notices)
    ]
    return [
        Block([*_state(picture, width), *_warnings(picture, now)], least=3, most=3),
        Block([*_curves(picture, width)], least=3, most=1, has_gap=True),
        Block([*_shares(picture)], least=0),
        *processes(picture, now),
        Block(listed("problem", picture.problems), style="red", noun="rows of problems"),
        Block([*_samples(picture)], least=0, most=1, has_gap=True),
        Block(listed("log", notices), least=2, most=1, has_gap=True),
    ]


def _state(picture: RunPicture, width: int) -> Iterable[tuple[str, Row | str]]:
    style = STATE_STYLES.get(picture.state, "")
    owner = f"  {picture.owner}" if picture.owner else ""
    yield picture.state, row((picture.title, f"bold {style}".strip()), (owner, "dim"))
    yield "step", _progress(picture, width)
    if picture.supervisor_state not in (None, "training"):
        fact = BY_NAME["supervisor_state"]
        yield fact.title, plain(fact, picture.supervisor_state)
    if picture.reason:
        yield "why", row((picture.reason, style))
    if job := picture.job:
        wait = f", waits for {job.waits_for}" if job.waits_for else ""
        message = f": {job.message}" if job.message else ""
        yield "job", f"{job.id}: {job.state}{wait}{message}"


def _progress(picture: RunPicture, width: int) -> Row:
    step, of = picture.step, picture.max_steps
    if not of:
        return row(f"{step:,}")
    share = min(1.0, step / of)
    left = picture.seconds_left
    behind = f"  {share:6.1%}" + (f"  {span(left)} left" if left is not None else "")
    before = f"{steps_of(step, of)}  "
    room = max(0, min(width, LABEL + WIDEST_CURVE) - LABEL - len(before) - len(behind))
    done = round(share * room)
    return row(before, (DONE * done, "green"), (TO_DO * (room - done), "dim"), behind)


def _warnings(picture: RunPicture, now: float) -> Iterable[tuple[str, Row]]:
    """Yield the row of a finding of corruption, and those of a late step and of slow ranks."""
    record, is_training = picture.record, picture.state == "training"
    if record.corruption:
        yield "corruption", row((record.corruption.text, "red"))
    if record.last and is_training:
        age, rate = now - record.last.time, record.seconds_per_step or 0.0
        if age > max(LONG_STEP_SECONDS, LONG_STEPS * rate):
            yield "waits", row((f"no new step for {span(age)}", "yellow"))
    for rank in record.slow_ranks[:SLOW_RANKS] if is_training else ():
        yield "slow", row((f"{rank.name}: {rank.reason}", "yellow"))


def _curves(picture: RunPicture, width: int) -> Iterable[tuple[str, Row | str]]:
    """Yield the rows of the losses, of the measures of validations, and of the other facts."""
    record, form = picture.record, picture.loss_form
    rest = width - LABEL - VALUE - 2
    room = min(WIDEST_CURVE, max(rest - REMARK, rest // 2))  # a narrow terminal cuts remarks
    remarks = {
        "loss": "smoothed" if form.smooths_labels else "",
        "grad_norm": _skipped_steps(record.skipped),
    }

    columns = picture.columns(max(1, room))

    def curve(
        label: str, value: str, values: Sequence[float | None], remark: str
    ) -> tuple[str, Row]:
        line = sparkline(values, room)
        return label, row(f"{value:>{VALUE}}  ", (line, "cyan"), (f"  {remark}", "dim"))

    def value_of(fact: Fact) -> Any:
        """Return a value of recent steps, or else of the last one; None without a row."""
        if fact.current == "share":
            return None
        value = record.current(fact)
        return getattr(record.last, fact.name, None) if value is None else value

    rows = {
        fact: curve(
            fact.title,
            plain(fact, value),
            columns[f"{fact.name}_max" if fact.extremes == ("max",) else fact.name],
            remarks.get(fact.name, fact.unit_of(form) if fact.format == "rate" else ""),
        )
        for fact, value in values_at("watch", value_of).items()
    }
    yield from (text for fact, text in rows.items() if fact.format == "loss")
    for name in reversed(picture.scores):  # the last measure is the most informative one
        newest = picture.newest.scores.get(name) if picture.newest else None
        value = newest.value if newest else None
        number = "not finite" if value is None else score_value(name, value)
        label = _measure(name, newest.decoding if newest else None)
        values = [score for _, score in sorted(picture.scores[name].items())]
        yield curve(label, number, values, _best(picture, name))
    yield from (text for fact, text in rows.items() if fact.format != "loss")
    if record.last is None and picture.state == "training":
        yield BY_NAME["loss"].title, "waiting for the first step"


def _skipped_steps(last: SkippedLine | None) -> str:
    """Return the number of skipped steps, and of those that a guard refused, as text."""
    if last is None:
        return ""
    refused = f", {last.skipped_spikes:,} refused" if last.skipped_spikes else ""
    return f"{counted(last.skipped_steps, 'step')} skipped{refused}"


def _measure(name: str, decoding: str | None) -> str:
    """Return the label of a measure's row, without the decoding if both do not fit."""
    if name == "loss":  # the training loss has a separate row
        return "validation loss"
    heading = visible_line(score_heading(name, decoding))
    return heading if len(heading) < LABEL else visible_line(score_name(name))[: LABEL - 1]


def _best(picture: RunPicture, name: str) -> str:
    if name not in picture.best:
        return ""
    best = picture.best[name]
    return f"best {score_value(name, best.value)} at step {best.step:,}"


def _shares(picture: RunPicture) -> Iterable[tuple[str, str]]:
    """Yield the rows of goodput, and of the shares of time that is not spent on training."""
    record, last = picture.record, picture.record.last
    if last and last.goodput is not None:
        text = f"{last.goodput:.1%}"
        if last.wall_seconds is not None:
            text += f" of {span(last.wall_seconds)}"
        if last.restarts:
            lost = counted(last.lost_steps or 0, "step")
            text += f"; {counted(last.restarts, 'restart')}, {lost} trained again"
        yield "goodput", text
    shares = [
        f"{fact.title} {share:.1%}"
        for fact in facts_for("watch")
        if fact.current == "share" and (share := record.current(fact)) is not None
    ]
    if shares:
        yield "shares", f"{', '.join(shares)} of the last {counted(len(record.recent) - 1, 'step')}"


def _samples(picture: RunPicture) -> Iterable[tuple[str, Row | str]]:
    if (newest := picture.newest) is None:
        return
    for sample in newest.samples:
        is_right = sample.translation == sample.reference
        yield f"sample, {newest.step:,}", row(sample.source)
        yield "  translation", row((sample.translation, "green" if is_right else ""))
        if not is_right:
            yield "  reference", row((sample.reference, "dim"))


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Draw values between the lowest and the highest one, in at most `width` characters.

    Values that are unknown or not finite are left out. If there are too many values, a character
    stands for the mean of several.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or width < 1:
        return ""
    columns = known
    if len(known) > width:
        with np.errstate(over="ignore"):  # the numbers of an untrusted record may overflow
            columns = [float(part.mean()) for part in np.array_split(known, width)]
    low, high = min(columns), max(columns)
    span, rounding = high - low, 1e-9 * max(abs(low), abs(high))
    if not rounding < span < math.inf:
        return BLOCKS[0] * len(columns)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((value - low) / span * top)] for value in columns)
