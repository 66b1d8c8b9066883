"""Weights & Biases as a view of metrics.jsonl: the one file that imports wandb.

A killed offline run loses the points that W&B had not flushed, and starting again with the same
id begins another folder. So at start the last step in W&B's own files is read, and what the
record has beyond it is logged again with explicit steps: together the folders hold one history.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import wandb
from google.protobuf.message import DecodeError
from wandb.proto import wandb_internal_pb2

from trainer.errors import TrainerError
from trainer.metrics import Line, lines_after
from trainer.recipe import TrainingRecipe
from trainer.run_folder import RunFolder

# A .wandb file is a LevelDB log: a file header, then blocks of records that may be split.
_FILE_HEADER_BYTES = 7
_BLOCK_BYTES = 32768
_TAIL_BYTES = 2**20
_RECORD_HEADER_BYTES = 7  # checksum (4), length (2), type (1)
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class WandbTracker:
    """Shows the record of a run in W&B; offline unless the recipe or WANDB_MODE says otherwise."""

    def __init__(self, recipe: TrainingRecipe, run: RunFolder) -> None:
        logging.getLogger("wandb").setLevel(logging.ERROR)
        mode = os.environ.get("WANDB_MODE", recipe.tracking.wandb)
        try:
            self._run = wandb.init(
                mode=mode,  # type: ignore[arg-type]
                project=recipe.tracking.project,
                id=run.card().id,
                name=run.path.name,
                dir=str(run.path),
                resume="allow",
                config=recipe.model_dump(mode="json"),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, ValueError) as error:
            raise TrainerError(
                f"W&B does not start in mode {mode!r}: {error}. Use tracking.wandb=offline, or "
                "`wandb login` for online"
            ) from error
        # W&B writes a step when the next one begins, so the last one on disk is whole.
        last = last_logged_step(run.path / "wandb")
        for line in lines_after(run.metrics, last):
            if line["step"] > last:
                self.log(line)

    def log(self, line: Line) -> None:
        """Log one line of the record under its own step."""
        values = {f"{line['kind']}/{key}": value for key, value in line.items() if _shows(key)}
        self._run.log(values, step=line["step"])

    def finish(self) -> None:
        self._run.finish()


def last_logged_step(folder: Path) -> int:
    """The last step in the W&B files under a run's ``wandb`` folder, or 0."""
    files = folder.glob("*run-*/run-*.wandb")
    return max(map(_last_step, files), default=0)


def _last_step(file: Path) -> int:
    """Of one .wandb file; read from its end, since it may have a million steps."""
    size = file.stat().st_size
    tail = _TAIL_BYTES
    while True:
        start = max(0, size - tail) // _BLOCK_BYTES * _BLOCK_BYTES
        steps = list(history_steps(file, start))
        if steps or not start:
            return max(steps, default=0)
        tail *= 8


def history_steps(file: Path, start: int = 0) -> Iterator[int]:
    """The steps in one .wandb file, as far as it was flushed; from a block's start on."""
    with file.open("rb") as opened:
        opened.seek(start)
        content = opened.read()
    for data in _records(content, 0 if start else _FILE_HEADER_BYTES):
        record = wandb_internal_pb2.Record()
        try:
            record.ParseFromString(data)
        except DecodeError:
            return
        if record.HasField("history"):
            yield record.history.step.num


def _records(data: bytes, position: int) -> Iterator[bytes]:
    parts: bytes | None = None  # None: the record's beginning lies before the data
    while position + _RECORD_HEADER_BYTES <= len(data):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _RECORD_HEADER_BYTES:
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        position += _RECORD_HEADER_BYTES
        payload = data[position : position + length]
        if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(payload) < length:
            return  # not flushed further
        position += length
        if kind in (_FULL, _FIRST):
            parts = payload
        elif parts is not None:
            parts += payload
        if kind in (_FULL, _LAST) and parts is not None:
            yield parts


def _shows(key: str) -> bool:
    return key not in ("step", "kind", "samples")
