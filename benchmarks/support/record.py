"""Record the steps of a peer, and compute the peer's speed from this record.

The module needs only Python, because peers run in environments without transloom.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

# seconds after the first step that are excluded, because caches and queues fill
SETTLING_SECONDS = 10.0


@dataclass(frozen=True)
class Step:
    """End of an optimizer step."""

    time: float  # seconds since the epoch
    target_tokens: int  # target tokens of this step, with EOS, without padding


class StepRecord:
    """Writer of steps.jsonl, which has one line per completed step."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("w")

    def step(self, target_tokens: int) -> None:
        print(json.dumps([time.time(), target_tokens]), file=self._file, flush=True)


def read_steps(path: Path) -> list[Step]:
    """Return the steps in the complete lines of a file; an empty list if there is no file."""
    text = path.read_text() if path.exists() else ""
    return [Step(*json.loads(line)) for line in text.split("\n")[:-1]]


def tokens_per_second(steps: list[Step], settling_seconds: float) -> float:
    """Return the speed in the steady state, which begins some seconds after the first step.

    Args:
        settling_seconds: seconds from the first step to the steady state.
    """
    start = steps[0].time + settling_seconds
    before = [step for step in steps if step.time <= start]
    after = [step for step in steps if step.time > start]
    assert len(after) > 1, (
        f"the steady state has {len(after)} steps, expected at least 2: raise --seconds"
    )
    return sum(step.target_tokens for step in after) / (after[-1].time - before[-1].time)
