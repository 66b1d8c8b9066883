"""W&B's history of a run as its own files have it."""

import json
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

from trainer.tracking.leveldb_log import whole_records


def history(run: Path) -> list[dict[str, Any]]:
    """The rows in the files under a run's folder, in the order of the files."""
    return [row for file in wandb_files(run) for row in rows_of(file)]


def wandb_files(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("*run-*/run-*.wandb"))


def rows_of(file: Path) -> list[dict[str, Any]]:
    """The rows of one file, as far as it is whole."""
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
    """Return a row that a server got with the keys that it has in W&B's files."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        inner = flattened(value) if isinstance(value, dict) else None
        flat |= {key: value} if inner is None else {f"{key}/{k}": v for k, v in inner.items()}
    return flat


def run_of(file: Path) -> Any:
    """Return the content of one file on its run: W&B's record of the run."""
    records = (Record.FromString(content) for _, content in whole_records(file))
    return next(record.run for record in records if record.HasField("run"))


def config(file: Path) -> dict[str, Any]:
    """The run's config as one file has it."""
    values = {item.key: json.loads(item.value_json) for item in run_of(file).config.update}
    return {key: value for key, value in values.items() if key != "_wandb"}


def summary(run: Path) -> dict[str, Any]:
    """The last value of each key that W&B has written into its summary."""
    values: dict[str, Any] = {}
    for file in wandb_files(run):
        for _, content in whole_records(file):
            for item in Record.FromString(content).summary.update:
                values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values
