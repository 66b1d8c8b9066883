"""The record that peers write of their steps, and the speed that follows from it.

Needs nothing but Python, since the peers run in environments without transloom.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

SETTLING_SECONDS = 10.0  # not counted after the first step: caches fill, queues run full


@dataclass(frozen=True)
class Step:
    """The end of an optimizer step."""

    time: float  # seconds since the epoch
    target_tokens: int  # in this step, EOS included, padding not


class StepRecord:
    """steps.jsonl: a line for each step, written when it has ended."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w")

    def step(self, target_tokens: int) -> None:
        print(json.dumps([time.time(), target_tokens]), file=self._file, flush=True)


def read_steps(path: Path) -> list[Step]:
    """The complete lines."""
    text = path.read_text() if path.exists() else ""
    return [Step(*json.loads(line)) for line in text.split("\n")[:-1]]


def tokens_per_second(steps: list[Step], settling_seconds: float) -> float:
    """Return the speed in the steady state: of the steps that ended after it had settled."""
    start = steps[0].time + settling_seconds
    before = [step for step in steps if step.time <= start]
    after = [step for step in steps if step.time > start]
    assert len(after) > 1, f"{len(after)} steps in the steady state: give --seconds more"
    return sum(step.target_tokens for step in after) / (after[-1].time - before[-1].time)
