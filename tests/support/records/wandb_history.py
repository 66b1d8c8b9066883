"""History of a run in W&B's files."""

import json
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

from trainer.tracking.leveldb_log import whole_records


def history(run: Path) -> list[dict[str, Any]]:
    """Return the rows in the files below a run's folder, in the order of the files."""
    return [row for file in wandb_files(run) for row in rows_of(file)]


def wandb_files(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("*run-*/run-*.wandb"))


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Return the complete rows of a file."""
    records = [Record.FromString(content) for _, content in whole_records(file)]
    return [
        {
            (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.HasField("history")
    ]


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """Rename the keys of a row that a server received to those of W&B's files."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        inner = flattened(value) if isinstance(value, dict) else None
        flat |= {key: value} if inner is None else {f"{key}/{k}": v for k, v in inner.items()}
    return flat


def run_of(file: Path) -> Any:
    """Return W&B's record of the run in a file."""
    records = (Record.FromString(content) for _, content in whole_records(file))
    return next(record.run for record in records if record.HasField("run"))


def config(file: Path) -> dict[str, Any]:
    """Return the run's config in a file."""
    values = {item.key: json.loads(item.value_json) for item in run_of(file).config.update}
    return {key: value for key, value in values.items() if key != "_wandb"}


def summary(run: Path) -> dict[str, Any]:
    """Return the last value of each key in W&B's summary."""
    values: dict[str, Any] = {}
    for file in wandb_files(run):
        for _, content in whole_records(file):
            for item in Record.FromString(content).summary.update:
                values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values
