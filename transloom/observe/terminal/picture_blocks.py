"""Convert a `RunPicture` to blocks of rows, each with an importance for `picture_layout`.

Colours only add emphasis: words describe every problem, too.
"""

import time
from collections.abc import Iterable

from cluster.terminal import shown
from foundation.untrusted_text import visible_line
from foundation.wording import counted, span, steps_of
from trainer.record.facts import BY_NAME, Fact, facts_for
from trainer.record.metrics_lines import Sample, SkippedLine
from transloom.observe.terminal.fact_text import plain, values_at
from transloom.observe.terminal.picture_layout import (
    DONE,
    LABEL,
    TO_DO,
    Block,
    Row,
    gap,
    labelled,
    row,
)
from transloom.observe.terminal.picture_processes import processes
from transloom.observe.terminal.run_picture import RunPicture
from transloom.observe.terminal.scores import score_heading, score_name, score_value
from transloom.observe.terminal.sparkline import Series, sparkline
from transloom.observe.terminal.tables import STATE_STYLES
from transloom.observe.terminal.time_format import clock

VALUE = 10
WIDEST_CURVE = 120
REMARK = 26  # columns kept free to the right of a curve for a remark
WIDE = 120  # minimum width of a terminal to show samples as a table
REASON_ROWS = 3
SLOW_RANKS = 4  # shown at most
# Importances of the rows of facts.
IMPORTANCES = {
    "loss": 2,
    "nll": 9,
    "target_tokens_per_second": 5,
    "grad_norm": 9,
    "learning_rate": 10,
}
LEAST_IMPORTANCE = 11
# A run is reported as waiting if its last step is older than this many seconds, and also older than
# the usual duration of this many steps.
LONG_STEP_SECONDS = 60.0
LONG_STEPS = 5


def blocks_of(picture: RunPicture, width: int, now: float | None = None) -> list[Block]:
    """Return all blocks of a run's picture, from top to bottom.

    Args:
        width: the width of the terminal in cells.
        now: the current time in seconds since the epoch; None reads the clock.
    """
    now = time.time() if now is None else now
    return [
        *_head(picture),
        _progress(picture, width),
        gap(),
        *_curves(picture, width),
        *_shares(picture, now),
        gap(),
        *processes(picture, now),
        *_samples(picture, width),
        gap(),
        *_notices(picture),
    ]


def _head(picture: RunPicture) -> Iterable[Block]:
    style = STATE_STYLES.get(picture.state, "")
    state = (f"{picture.state:<{LABEL}}", f"bold {style}".strip())
    owner = f"  {picture.owner}" if picture.owner else ""
    yield Block(None, [row(state, (picture.title, "bold"), (owner, "dim"))], importance=0)
    if job := picture.job:
        wait = f", waits for {job.waits_for}" if job.waits_for else ""
        message = f": {job.message}" if job.message else ""
        text = f"{job.id}: {job.state}{wait}{message}"
        yield Block("job", [text], importance=1, most=REASON_ROWS)
    if picture.reason:
        yield Block("why", [picture.reason], importance=1, style=style, most=REASON_ROWS)
    yield Block(
        "problem", picture.problems, importance=8, style="red", most=2, noun="rows of problems"
    )


def _progress(picture: RunPicture, width: int) -> Block:
    step, of = picture.step, picture.max_steps
    if not of:
        return Block("step", [f"{step:,}"], importance=0)
    share = min(1.0, step / of)
    left = picture.seconds_left
    behind = f"  {share:6.1%}" + (f"  {span(left)} left" if left is not None else "")
    before = f"{steps_of(step, of)}  "
    room = max(0, min(width, LABEL + WIDEST_CURVE) - LABEL - len(before) - len(behind))
    done = round(share * room)
    bar = (DONE * done, "green"), (TO_DO * (room - done), "dim")
    return Block("step", [row(before, *bar, behind)], importance=0)


def _curves(picture: RunPicture, width: int) -> Iterable[Block]:
    record, form = picture.record, picture.loss_form
    rest = width - LABEL - VALUE - 2
    room = min(WIDEST_CURVE, max(rest - REMARK, rest // 2))  # a narrow terminal cuts remarks

    def curve(name: str, value: str, series: Series, importance: int, remark: str = "") -> Block:
        line = sparkline(series, room)
        behind = f"  {remark}" if remark else ""
        text = row(f"{value:>{VALUE}}  ", (line, "cyan"), (behind, "dim"))
        return Block(name, [text], importance)

    def fact_curve(fact: Fact, value: float) -> Block:
        remark = fact.unit_of(form) if fact.format == "rate" else ""
        if fact.name == "loss" and form.smooths_labels:
            remark = "smoothed"
        elif fact.name == "grad_norm":
            remark = _skipped_steps(record.skipped)
        importance = IMPORTANCES.get(fact.name, LEAST_IMPORTANCE)
        return curve(fact.title, plain(fact, value), picture.curves[fact.name], importance, remark)

    def value_of(fact: Fact) -> float | None:
        """Return a value of recent steps, or else of the last one; None without a row."""
        if fact.name not in picture.curves:
            return None
        value = record.current(fact)
        return getattr(record.last, fact.name, None) if value is None else value

    rows = values_at("watch", value_of)
    losses = [fact for fact in rows if fact.format == "loss"]
    yield from (fact_curve(fact, rows.pop(fact)) for fact in losses)
    # The last measure is the most informative one.
    for number, name in enumerate(reversed(picture.scores)):
        newest = picture.newest.scores.get(name) if picture.newest else None
        value = newest.value if newest else None
        text = "not finite" if value is None else score_value(name, value)
        importance = 3 if number == 0 else min(12 + number, 14)
        series = picture.scores[name]
        decoding = newest.decoding if newest else None
        yield curve(_measure(name, decoding), text, series, importance, _best(picture, name))
    yield from (fact_curve(fact, value) for fact, value in rows.items())
    if record.last is None and picture.state == "training":
        yield Block(BY_NAME["loss"].title, ["waiting for the first step"], importance=2)


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


def _shares(picture: RunPicture, now: float) -> Iterable[Block]:
    """Yield blocks about time that is not spent on training: a late step, stalls and goodput."""
    record, last = picture.record, picture.record.last
    if last and picture.state == "training":
        age, rate = now - last.time, picture.record.seconds_per_step or 0.0
        if age > max(LONG_STEP_SECONDS, LONG_STEPS * rate):
            yield Block("waits", [f"no new step for {span(age)}"], importance=3, style="yellow")
    if record.corruption:
        yield Block("corruption", [record.corruption.text], importance=3, style="red")
    shares = {
        fact.title: share
        for fact in facts_for("watch")
        if fact.current == "share" and (share := record.current(fact)) is not None
    }
    if shares:
        steps = counted(len(record.recent) - 1, "step")
        text = ", ".join(f"{title} {share:.1%}" for title, share in shares.items())
        yield Block("shares", [f"{text} of the last {steps}"], importance=8, most=2)
    if record.slow_ranks and picture.state == "training":
        slow = [f"{rank.name}: {rank.reason}" for rank in record.slow_ranks[:SLOW_RANKS]]
        yield Block("slow", slow, importance=4, style="yellow", most=2, noun="slow ranks")
    if last and last.goodput is not None:
        text = f"{last.goodput:.1%}"
        if last.wall_seconds is not None:
            text += f" of {span(last.wall_seconds)}"
        if last.restarts:
            lost = counted(last.lost_steps or 0, "step")
            text += f"; {counted(last.restarts, 'restart')}, {lost} trained again"
        yield Block("goodput", [text], importance=8)


def _samples(picture: RunPicture, width: int) -> Iterable[Block]:
    newest = picture.newest
    if newest is None or not newest.samples:
        return
    heading = row((f"samples of step {newest.step:,}", "bold"))
    yield gap()
    if width >= WIDE:
        column = (min(width, 240) - 6) // 3
        names = [row((name, "dim")) for name in ("sentence", "translation now", "reference")]
        table = [_columns(texts, column) for texts in [names, *map(_texts, newest.samples)]]
        yield Block(None, [heading, *table], importance=11, least=0, noun="samples")
        return
    for number, sample in enumerate(newest.samples):
        source, translation, reference = _texts(sample)
        rows = [labelled("  sentence", source), labelled("  translation", translation)]
        if sample.translation == sample.reference:
            rows[-1].append("  (as the reference)", "dim")
        else:
            rows.append(labelled("  reference", reference))
        rows = [heading, *rows] if number == 0 else rows
        yield Block(None, rows, importance=11 + 10 * number, least=0, is_whole=True)


def _texts(sample: Sample) -> list[Row]:
    right = "green" if sample.translation == sample.reference else ""
    return [row(sample.source), row((sample.translation, right)), row((sample.reference, "dim"))]


def _columns(texts: list[Row], width: int) -> Row:
    for text in texts:
        text.truncate(width, overflow="ellipsis", pad=True)
    return shown("  ").join(texts)


def _notices(picture: RunPicture) -> Iterable[Block]:
    """Yield a block for each notice, of which the oldest ones are left out first."""
    for age, entry in reversed(list(enumerate(reversed(picture.notices)))):
        text = row((f"{clock(entry.time)}  ", "dim"), entry.text.split("\n")[0])
        yield Block(None, [text], importance=11 + age, least=1 if age < 2 else 0)
