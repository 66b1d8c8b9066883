"""`transloom checkpoints`: what a run could go on from."""

from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer.checkpoints.format import Checkpoint, list_checkpoints
from trainer.errors import CheckpointError
from trainer.run_folder import RunFolder


def checkpoint_rows(run: Path) -> list[dict[str, Any]]:
    """A row for each complete checkpoint of a run."""
    folder = RunFolder(run)
    folder.card()
    rows: list[dict[str, Any]] = []
    for path in list_checkpoints(folder.checkpoints):
        try:
            header = Checkpoint(path).header
        except CheckpointError as error:
            rows.append({"path": str(path), "problem": str(error)})
            continue
        rows.append(
            {
                "step": header.step,
                "path": str(path),
                "bytes": sum(file.bytes for file in header.files),
                "ranks": header.numerics.get("ranks"),
                "zero_stage": header.numerics.get("zero_stage"),
                "validation_loss": header.validation_loss,
                "data_digest": header.data_digest,
            }
        )
    return rows


def verified_rows(run: Path) -> list[dict[str, Any]]:
    """A row for each checkpoint, with whether all its files are as they were written."""
    folder = RunFolder(run)
    folder.card()
    rows = []
    for path in list_checkpoints(folder.checkpoints):
        try:
            Checkpoint(path).verify()
        except CheckpointError as error:
            rows.append({"path": str(path), "intact": False, "problem": str(error)})
        else:
            rows.append({"path": str(path), "intact": True, "problem": None})
    return rows


def checkpoints_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("step", "size", "written by", "validation loss", "data digest", box=None)
    for row in rows:
        if "problem" in row:
            table.add_row(Text(row["path"]), Text(row["problem"], style="red"))
            continue
        loss = row["validation_loss"]
        table.add_row(
            str(row["step"]),
            f"{row['bytes'] / 1e6:.1f} MB",
            f"{row['ranks']} ranks, ZeRO {row['zero_stage']}",
            "" if loss is None else f"{loss:.3f}",
            row["data_digest"][:16],
        )
    return table


def verification_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("checkpoint", "state", box=None)
    for row in rows:
        state = Text("intact", "green") if row["intact"] else Text(row["problem"], "red")
        table.add_row(Text(row["path"]), state)
    return table
