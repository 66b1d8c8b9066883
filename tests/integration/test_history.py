"""One history across restarts: in the record, in W&B's files, and as W&B reads them.

`make chaos` runs this test; tests/trainer/tracking/test_wandb_tracker.py tests what a kill leaves,
piece by piece.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.cluster.processes import HANG_SECONDS, wait_until
from support.cluster.strike import standing_at
from support.command import TRANSLOOM
from support.records.wandb_history import flattened, history, wandb_files
from support.records.wandb_server import WandbServer

from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import Resumed, TrainLine, ValidationLine

pytestmark = pytest.mark.chaos

STEPS = 200
OPTIONS = [
    "cluster.ranks=2",
    f"trainer.max_steps={STEPS}",
    "trainer.validate_every_steps=50",
    "checkpoints.every_steps=20",
    "tracking.wandb=offline",
]


@pytest.fixture
def run(runs, orders) -> Path:
    """Return a run that was killed in several ways before it finished."""
    folder = runs.folder / "killed"

    def is_wandb(file: Path) -> bool:
        return file.is_relative_to(folder) and file.suffix == ".wandb"

    with driver(runs, folder) as process:
        with standing_at(orders, 30):
            wait_until(lambda: rows_in_files(folder))
            os.kill(process_that_writes(is_wandb), signal.SIGKILL)
        with standing_at(orders, 60) as rank_0:
            rows = rows_in_files(folder)
            os.kill(rank_0, signal.SIGKILL)
        with standing_at(orders, 90):
            wait_until(lambda: rows_in_files(folder) > rows)
            process.kill()
    with driver(runs, folder) as process:
        rows = rows_in_files(folder)
        with standing_at(orders, 120) as rank_0:
            wait_until(lambda: rows_in_files(folder) > rows)
            os.kill(rank_0, signal.SIGKILL)
        assert process.wait(HANG_SECONDS) == 0
    return folder


@contextmanager
def driver(runs: Any, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [TRANSLOOM, "train", runs.recipe, *OPTIONS, "--run", folder, "--address", runs.address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def rows_in_files(run: Path) -> int:
    try:
        return len(history(run))
    except FileNotFoundError:
        return 0  # a start has just removed a file without rows


def process_that_writes(is_it: Callable[[Path], bool]) -> int:
    """Return the id of the process that has such a file open for writing."""
    for process in psutil.process_iter():
        try:
            if any(f.mode != "r" and is_it(Path(f.path)) for f in process.open_files()):
                return process.pid
        except psutil.Error:
            continue  # the process has ended, or belongs to another user
    raise AssertionError("no process writes the file")


def test_several_kills_leave_a_single_complete_history(run):
    lines = read_metrics(run / "metrics.jsonl")
    steps = {line.step: line for line in lines if isinstance(line, TrainLine)}
    assert list(steps) == list(range(1, STEPS + 1))
    last = steps[STEPS]
    assert last.restarts >= 3
    assert last.lost_steps > 0
    assert 0.0 < last.goodput < 1.0

    rows = history(run)
    assert len(wandb_files(run)) >= 4
    assert [row["_step"] for row in rows] == list(range(1, STEPS + 1))
    for row in rows:
        train = steps[row["_step"]].model_dump(
            exclude={"version", "step", "kind"}, exclude_none=True
        )
        train = {k: json.dumps(v) if isinstance(v, list) else v for k, v in train.items()}
        assert {k.removeprefix("train/"): row[k] for k in row if k.startswith("train/")} == train
    validations = [line for line in lines if isinstance(line, ValidationLine)]
    losses = {line.step: line.scores["loss"].value for line in validations}
    assert list(losses) == [50, 100, 150, STEPS]
    assert {r["_step"]: r["validation/loss"] for r in rows if "validation/loss" in r} == losses
    resumed = [line.from_step for line in lines if isinstance(line, Resumed)]
    shown = [r["event/resumed/from_step"] for r in rows if "event/resumed" in r]
    assert shown
    assert [step for step in resumed if step in shown] == shown

    with WandbServer() as server:
        printed = server.sync(run)
    assert "ERROR" not in printed
    (uploaded,) = server.history.values()
    assert [flattened(row) for row in uploaded] == rows
    (summary,) = server.summary.values()
    for name in ("restarts", "lost_steps", "goodput"):
        assert summary[f"train/{name}"] == getattr(last, name)
