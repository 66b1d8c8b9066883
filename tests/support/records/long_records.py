"""Records of many steps, made without training: a curve with noise, spikes and rare lines."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from support.records.lines import skipped_line, train_line, validation_line
from trainer.tracking.records import Line, Resumed


def long_record(path: Path, steps: int, first_step: int = 1, spikes: tuple[int, ...] = ()) -> Path:
    """A record of so many steps after those that are there."""
    with path.open("a") as file:
        for line in lines_of(first_step, steps, spikes):
            file.write(line.to_json() + "\n")
    return path


def lines_of(first_step: int, steps: int, spikes: tuple[int, ...] = ()) -> Iterator[Line]:
    """Every 100th step is validated, every 250th one is skipped, every 1000th one is a restart."""
    for step in range(first_step, first_step + steps):
        if step % 1000 == 0:
            yield Resumed(step=step - 1, from_step=step - 10, restarts=step // 1000, lost_steps=9)
        if step % 250 == 0:
            yield skipped_line(step)
            continue
        noise = random.Random(step).random()
        loss = 2.0 + 5.0 / step + noise + (40.0 if step in spikes else 0.0)
        yield train_line(
            step,
            loss=loss,
            nll=loss - 0.1,
            grad_norm=noise * 3,
            data_digest="ab" * 32,
            wall_seconds=step * 0.6,
            counted_seconds=step * 0.5,
            goodput=0.83,
            restarts=step // 1000,
            lost_steps=0,
        )
        if step % 100 == 0:
            yield validation_line(step, loss=loss, text="a <b>sentence</b> \u2028 as it is")


def damaged(path: Path, step: int) -> None:
    """Put a line of other bytes where the line of a step is."""
    text = path.read_bytes()
    at = text.index(json.dumps({"version": 2, "step": step})[:-1].encode())
    end = text.index(b"\n", at)
    path.write_bytes(text[:at] + b"\x00" * (end - at) + text[end:])
