"""End of a run's metrics file: its last step, its speed, its validations.

`read_record_end` finds lines by their bytes and parses only those that it needs, because a metrics
file may have millions of lines.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import MAX_COUNT
from run_store.errors import RunError
from run_store.record.facts import Fact
from run_store.record.line_reader import ranges_of, whole_lines
from run_store.record.metrics_file import parsed
from run_store.record.metrics_lines import (
    MAX_FLOPS,
    CorruptionEvent,
    Line,
    RankHung,
    Resumed,
    SkippedLine,
    SlowRankState,
    TrainLine,
    ValidationLine,
)

L = TypeVar("L", bound=Line | CorruptionEvent)

TERA = 10**12
# Number of steps from which speed and remaining time are computed.
RECENT_STEPS = 30
# Bytes that identify a kind of line. A text within a line cannot contain these bytes, because its
# quotation marks are escaped.
_VALIDATION = b'"kind": "validation"'
_SKIPPED = (b'"kind": "skipped"',)
_RESUMED = (b'"event": "resumed"',)
_CORRUPTION = (b'"event": "corruption_found"', b'"event": "wrong_reduction"')
_HANG = (b'"event": "rank_hung"',)
_STEP = re.compile(rb'"kind": "(?:train|skipped)"')


@dataclass(frozen=True)
class RecordEnd:
    """State of a run according to the end of its metrics file.

    Attributes:
        step: the last recorded step.
        first_step: the first step that was read, or None if no step was read.
        recent: the last applied steps, at most `RECENT_STEPS` and only since the last start of the
            ranks, oldest first.
        validations: the validations that were read, oldest first.
        skipped: the last step that was not applied, or None.
        resumed: the event of the last restart of the ranks, or None.
        corruption: the last finding of silent data corruption, in a slot or in a sum; or None.
        hang: the last finding about a hang of the ranks, or None.
        problem: description of an unreadable line, or None. If there is such a line, the other
            attributes except `step` are empty.
    """

    step: int = 0
    first_step: int | None = None
    recent: tuple[TrainLine, ...] = ()
    validations: tuple[ValidationLine, ...] = ()
    skipped: SkippedLine | None = None
    resumed: Resumed | None = None
    corruption: CorruptionEvent | None = None
    hang: RankHung | None = None
    problem: str | None = None

    @property
    def last(self) -> TrainLine | None:
        """The newest applied step."""
        return self.recent[-1] if self.recent else None

    @property
    def world_size(self) -> int | None:
        return self.last.world_size if self.last else None

    @property
    def seconds_per_step(self) -> float | None:
        """Seconds per step, including work between steps such as validations; None if unknown."""
        if len(self.recent) < 2:
            return None
        return _ratio(self._seconds, self.recent[-1].step - self.recent[0].step)

    def seconds_left(self, max_steps: int | None) -> float | None:
        """Return the seconds until `max_steps` at the speed of recent steps; None if unknown."""
        rate = self.seconds_per_step
        return None if rate is None or max_steps is None else max(0, max_steps - self.step) * rate

    @property
    def target_tokens_per_second(self) -> float | None:
        """Target tokens per second of all ranks in recent steps; None if unknown."""
        if len(self.recent) < 2:
            return None
        return _ratio(sum(line.target_tokens for line in self.recent[1:]), self._seconds)

    @property
    def flops_per_second(self) -> float | None:
        """`model_flops` per second of all ranks in recent steps; None if a step has no value."""
        counted = [line.model_flops for line in self.recent[1:] if line.model_flops is not None]
        if not counted or len(counted) < len(self.recent) - 1:
            return None
        return _ratio(sum(counted), self._seconds, MAX_FLOPS)

    @property
    def tflops_per_second(self) -> float | None:
        """`flops_per_second` in units of 10¹²."""
        return None if self.flops_per_second is None else self.flops_per_second / TERA

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilization in the time of recent steps; None if a step has no value."""
        known = [(each.mfu, each.step_seconds) for each in self.recent[1:] if each.mfu is not None]
        if not known or len(known) < len(self.recent) - 1:
            return None
        return _ratio(sum(share * seconds for share, seconds in known), self._seconds)

    @property
    def in_a_row(self) -> int | None:
        """Number of skipped steps since the last applied step; None without a step."""
        if not self.step:
            return None
        return self.skipped.in_a_row if self.skipped and self.skipped.step == self.step else 0

    @property
    def skipped_steps(self) -> int:
        return self.skipped.skipped_steps if self.skipped else 0

    @property
    def skipped_spikes(self) -> int:
        return self.skipped.skipped_spikes if self.skipped else 0

    @property
    def restarts(self) -> int | None:
        return self._largest_total("restarts")

    @property
    def lost_steps(self) -> int | None:
        return self._largest_total("lost_steps")

    @property
    def slow_ranks(self) -> list[SlowRankState]:
        """The slow ranks, slowest first; empty if the ranks were restarted since the last step."""
        if self.last is None:
            return []
        restarts = (self.resumed.restarts if self.resumed else None) or 0
        return (self.last.slow_ranks or []) if (self.last.restarts or 0) >= restarts else []

    def current(self, fact: Fact) -> Any:
        """Return the current value of a fact of the training lines; None if it is unknown."""
        if fact.current == "share":
            return self.share_of_time(fact.name)
        return getattr(self.last if fact.current == "last" else self, fact.name, None)

    def share_of_time(self, field: str) -> float | None:
        """Return the share of a field's seconds in the time of recent steps; None if unknown."""
        if len(self.recent) < 2 or not 0 < self._seconds < MAX_COUNT:
            return None
        stalls = [getattr(line, field) for line in self.recent[1:]]
        if None in stalls:
            return None
        stalled: float = sum(stalls)
        return min(max(stalled / self._seconds, 0.0), 1.0)

    def _largest_total(self, name: str) -> int | None:
        """Return a total of the run, from the line of its last step or last restart."""
        totals = [getattr(line, name) for line in (self.last, self.resumed) if line]
        return max((total for total in totals if total is not None), default=None)

    @property
    def _seconds(self) -> float:
        return self.recent[-1].time - self.recent[0].time


def read_record_end(path: Path, most_bytes: int) -> RecordEnd:
    """Read the last `most_bytes` bytes of a metrics file; the result is empty without a file.

    Raises:
        OSError: the metrics file exists and cannot be read.
    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            text = whole_lines(ranges_of(file), max(0, size - most_bytes), size)
    except FileNotFoundError:
        return RecordEnd()
    lines = text.content.split(b"\n")[:-1]
    steps = [line for line in lines if _STEP.search(line)]
    try:
        return RecordEnd(
            step=_step(path, steps[-1]) if steps else 0,
            first_step=_step(path, steps[0]) if steps else None,
            recent=_recent(path, steps),
            validations=tuple(_validations(path, lines)),
            skipped=_last(path, lines, _SKIPPED, SkippedLine),
            resumed=_last(path, lines, _RESUMED, Resumed),
            corruption=_last(path, lines, _CORRUPTION, CorruptionEvent),
            hang=_last(path, lines, _HANG, RankHung),
        )
    except RunError as error:
        return RecordEnd(step=_last_step(path, steps), problem=str(error))


def _ratio(amount: float, per: float, most: float = MAX_COUNT) -> float | None:
    """Return `amount / per`, or None if `amount`, `per` or the result is implausible.

    A number is plausible if it is greater than 0 and less than `most`.
    """
    if not (0 < amount < most and 0 < per < most):
        return None
    quotient = amount / per
    return quotient if quotient < most else None


def _step(path: Path, line: bytes) -> int:
    step = parsed(path, line).step
    if not 0 <= step <= MAX_COUNT:
        raise RunError(f"{path} has a line of step {step}: the file is damaged")
    return step


def _last_step(path: Path, steps: list[bytes]) -> int:
    """Return the step of the last readable step line, or 0; check at most `RECENT_STEPS` lines."""
    for line in reversed(steps[-RECENT_STEPS:]):
        try:
            return _step(path, line)
        except RunError:
            continue
    return 0


def _recent(path: Path, steps: list[bytes]) -> tuple[TrainLine, ...]:
    recent: list[TrainLine] = []
    for text in reversed(steps[-RECENT_STEPS:]):
        line = parsed(path, text)
        if not isinstance(line, TrainLine):  # the step was skipped
            continue
        if recent and line.restarts != recent[-1].restarts:
            break  # the time between two starts is not part of the speed
        recent.append(line)
    return tuple(reversed(recent))


def _last(path: Path, lines: list[bytes], marks: tuple[bytes, ...], kind: type[L]) -> L | None:
    """Return the last line that has one of `marks` in its bytes, or None."""
    text = next((line for line in reversed(lines) if any(mark in line for mark in marks)), None)
    line = parsed(path, text) if text else None
    return line if isinstance(line, kind) else None


def _validations(path: Path, lines: list[bytes]) -> list[ValidationLine]:
    found = [parsed(path, line) for line in lines if _VALIDATION in line]
    return [line for line in found if isinstance(line, ValidationLine)]
