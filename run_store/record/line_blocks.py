"""Parse the lines of a metrics file (a record) in blocks of 1,024 steps.

::

    metrics.jsonl ──▶ LineBlock: steps, validations, events ──▶ a block of the curve file, or points

A record may be read while it grows: text after the last line end is ignored. A record may also be
damaged: invalid lines are counted and reported, and the other lines are read.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from foundation.file_model import Count, FileModel, error_summary
from run_store.record.line_reader import LONGEST_LINE_BYTES, LineTail, readable_lines
from run_store.record.metrics_lines import (
    Event,
    Line,
    SkippedLine,
    StepLine,
    TrainLine,
    ValidationLine,
    parse_line,
)
from run_store.scores import Scores

BLOCK_STEPS = 1024
# A block also ends when its validations and events have this number of bytes.
BLOCK_BYTES = 2**22
MAX_MARKS = 20_000
# A longer record is read up to this position.
MAX_RECORD_BYTES = 2**34
CHUNK_BYTES = 2**21


class ScoredStep(FileModel):
    """Step and scores of a validation, without its samples."""

    step: int
    scores: Scores


def scored_steps(lines: Iterable[ValidationLine]) -> list[ScoredStep]:
    """Return the steps and scores of validations."""
    return [ScoredStep(step=line.step, scores=line.scores) for line in lines]


@dataclass
class LineBlock:
    """Lines of one part of a record, grouped by kind.

    Attributes:
        start, end: the byte positions before the first and after the last line.
        last_step: the largest step up to `end`, even if its line precedes `start`. Lines of this
            step and of earlier ones are repetitions, which are left out.
        steps: the steps, applied or skipped.
        others: the text of all lines except those of applied steps.
        damaged: number of invalid lines.
        first_damage: text and problem of the first invalid line; None if there is none.
    """

    start: Count = 0
    end: Count = 0
    last_step: Count = 0
    steps: list[StepLine] = field(default_factory=list)
    others: bytes = b""
    damaged: Count = 0
    first_damage: str | None = None

    @classmethod
    def joined(cls, blocks: Sequence["LineBlock"]) -> "LineBlock":
        """Return the lines of all blocks of a record, except for those of applied steps."""
        texts, damaged = [block.others for block in blocks], sum(block.damaged for block in blocks)
        first_damage = next((block.first_damage for block in blocks if block.damaged), None)
        end, last_step = blocks[-1].end, blocks[-1].last_step
        return cls(0, end, last_step, [], b"".join(texts), damaged, first_damage)

    @property
    def is_full(self) -> bool:
        return len(self.steps) >= BLOCK_STEPS or len(self.others) >= BLOCK_BYTES

    @property
    def train(self) -> list[TrainLine]:
        return [line for line in self.steps if isinstance(line, TrainLine)]

    @cached_property
    def marks(self) -> list[Line]:
        """Validations, events and skipped steps."""
        return readable_lines(self.others, parse_line)[0]

    @property
    def validations(self) -> list[ValidationLine]:
        """The first validations, at most `MAX_MARKS`."""
        return [line for line in self.marks if isinstance(line, ValidationLine)][:MAX_MARKS]

    @property
    def events(self) -> list[Event | SkippedLine]:
        """The first events and skipped steps, at most `MAX_MARKS`."""
        return [line for line in self.marks if isinstance(line, Event | SkippedLine)][:MAX_MARKS]

    def add(self, text: bytes) -> None:
        """Parse a line, which has no line end."""
        try:
            line = parse_line(text)
        except ValidationError as error:
            self.damage(f"{text[:60]!r} ({error_summary(error)})")
            return
        if isinstance(line, StepLine):
            if line.step <= self.last_step:
                return
            self.last_step = line.step
            self.steps.append(line)
        if not isinstance(line, TrainLine):
            self.others += text + b"\n"

    def damage(self, words: str) -> None:
        self.damaged += 1
        self.first_damage = self.first_damage or words


def read_blocks(record: Path, start: int = 0, last_step: int = 0) -> Iterator[LineBlock]:
    """Yield the lines of a record in blocks; all but the last one, which may be empty, are full.

    Args:
        record: the metrics file.
        start: the position of the first line.
        last_step: the last step before that position.

    Raises:
        OSError: the record cannot be read.
    """
    tail = LineTail(record, start, read_bytes=CHUNK_BYTES, longest_line_bytes=LONGEST_LINE_BYTES)
    block = LineBlock(start, start, last_step)
    while block.end < MAX_RECORD_BYTES:
        new = tail.read()
        if new.has_long_line:
            block.damage(f"of more than {LONGEST_LINE_BYTES:,} bytes at byte {new.position:,}")
            continue
        if new.is_other or not new.content:
            break
        block.end = new.position
        for line in new.content.split(b"\n")[:-1]:
            block.add(line)
            block.end += len(line) + 1
            if block.is_full:
                yield block
                block = LineBlock(block.end, block.end, block.last_step)
    yield block
