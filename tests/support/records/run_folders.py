"""Run folders written without training."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data_pipeline.dataset.manifest import open_dataset
from run_store import lease as lease_module
from run_store.checkpoints.folder_names import folder_name
from run_store.checkpoints.format import HEADER
from run_store.folder import RunFolder, RunMetadata
from run_store.record.metrics_lines import Line
from run_store.record.recorded_status import (
    MANY_BYTES,
    lasting_status,
    recorded_status,
    write_status,
)
from support.records.checkpoints import make_header
from trainer.recipe import TrainingRecipe
from trainer.start.opening import open_folder

LONG_AGO = 1000.0


def opened_run(path: Path, recipe: TrainingRecipe) -> RunFolder:
    """Create the run of a recipe, without training it."""
    run = RunFolder(path)
    open_folder(run, recipe, *open_dataset(recipe.data))
    return run


def made_run(path: Path, *lines: Line, max_steps: int = 20, label_smoothing: float = 0.0) -> Path:
    """Write a run with this record and its status, without an owner or a checkpoint."""
    (path / "checkpoints").mkdir(parents=True)
    (path / "owners").mkdir()
    card = RunMetadata(id="1", name=path.name, dataset_identity="d", identity={})
    (path / "run.json").write_text(card.model_dump_json())
    trainer = (
        f"trainer:\n  ema_decay: null\n  max_steps: {max_steps}\n  loss: cross_entropy\n"
        f"  label_smoothing: {label_smoothing}\n"
    )
    (path / "recipe.yaml").write_text(f"name: tiny\nmodel:\n  max_steps: 7\n{trainer}")
    (path / "metrics.jsonl").write_text("".join(f"{line.to_json()}\n" for line in lines))
    return with_status(path)


def with_status(run: Path, **fields: Any) -> Path:
    """Write the status that the run's owner would write now, and return the run."""
    folder, held = RunFolder(run), lease_module.ownership(run)
    owner = held.card if held else None
    status = recorded_status(folder, lasting_status(folder), owner, MANY_BYTES)
    status = status.model_copy(update=fields)
    if held and not held.released:
        status = status.in_training(status.vitals)
    write_status(folder, status, run, is_final=status.state != "training")
    return run


def with_checkpoint(run: Path, step: int, **fields: Any) -> Path:
    """Add a checkpoint that has only a header to the run, and return the run."""
    folder = run / "checkpoints" / folder_name(step)
    folder.mkdir(parents=True)
    (folder / HEADER).write_text(make_header(step, **fields).to_json())
    return with_status(run)


def with_owner(
    run: Path, *, released: bool = False, silent_seconds: float = 0.0, **changes: Any
) -> Path:
    """Make this process, or a process with changed fields, the run's owner; return the run."""
    file = run / "owners" / ("00000007" + (".released" if released else ".json"))
    file.write_text(json.dumps(lease_module.this_process() | changes))
    renewed = time.time() - silent_seconds
    os.utime(file, (renewed, renewed))
    return with_status(run)


def dead_process() -> int:
    """Return the id of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid
