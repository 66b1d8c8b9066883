"""Records of many steps, written without training: a curve with noise, spikes and rare lines."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from run_store.record.metrics_lines import Resumed
from support.records.lines import skipped_line, train_line, validation_line

# All fields of a line, as a dictionary, because creating thousands of objects would be slow.
_TRAIN = json.loads(train_line(1).to_json())


def long_record(
    path: Path, steps: int, first_step: int = 1, spikes: tuple[int, ...] = (), rarity: int = 1
) -> Path:
    """Append this number of steps to an existing record."""
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines_of(first_step, steps, spikes, rarity))
    return path


def lines_of(
    first_step: int, steps: int, spikes: tuple[int, ...] = (), rarity: int = 1
) -> Iterator[str]:
    """Yield lines: every 100th step is validated, every 250th skipped, every 1000th a restart.

    Args:
        rarity: factor by which all of these are rarer.
    """
    for step in range(first_step, first_step + steps):
        if step % (1000 * rarity) == 0:
            restarts = step // (1000 * rarity)
            yield Resumed(
                step=step - 1, from_step=step - 10, restarts=restarts, lost_steps=9
            ).to_json()
        if step % (250 * rarity) == 0:
            yield skipped_line(step).to_json()
            continue
        noise = random.Random(step).random()
        loss = 2.0 + 5.0 / step + noise + (40.0 if step in spikes else 0.0)
        changed = {
            "step": step,
            "data_digest": f"{step:064x}",
            "time": 1000.0 + step,
            "loss": loss,
            "nll": loss - 0.1,
            "grad_norm": noise * 3,
            "target_tokens_seen": 10 * step,
            "restarts": step // (1000 * rarity),
            "lost_steps": 0,
            "wall_seconds": step * 0.6,
            "counted_seconds": step * 0.5,
            "goodput": 0.83,
        }
        yield json.dumps(_TRAIN | changed)
        if step % (100 * rarity) == 0:
            text = "a <b>sentence</b> \u2028 as it is"
            yield validation_line(step, loss=loss, text=text).to_json()


def damaged(path: Path, step: int) -> None:
    """Replace the line of a step by zero bytes."""
    text = path.read_bytes()
    at = text.index(json.dumps({"version": 2, "step": step})[:-1].encode())
    end = text.index(b"\n", at)
    path.write_bytes(text[:at] + b"\x00" * (end - at) + text[end:])
