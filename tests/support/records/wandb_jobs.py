"""Runs without training that record lines and send them to W&B, whose processes fail."""

import contextlib
import io
import logging
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

import trainer.tracking.wandb_tracker
from cluster.recipe import Recipe
from run_store.errors import RunError
from run_store.folder import RunFolder, RunMetadata
from run_store.record.metrics_file import MetricsFile, read_metrics
from run_store.record.metrics_lines import Line, Resumed
from support.cluster.processes import HANG_SECONDS, wait_until
from support.quality.planting import plant
from support.ranks.rank_pool import preloaded_context
from support.recipes import tiny_values
from support.records.lines import train_line
from support.records.wandb_history import history
from trainer.tracking.wandb_tracker import WandbTracker, last_logged_step


def make_run(path: Path) -> RunFolder:
    path.mkdir()
    run = RunFolder(path)
    card = RunMetadata(id="abcd1234", name="r", dataset_identity="", identity={})
    run.card_path.write_text(card.model_dump_json())
    return run


trainer.tracking.wandb_tracker.FLUSH_SECONDS = 0.5  # short, because jobs wait for this time


class Start:
    """Start of a run's ranks, reduced to its record and W&B."""

    def __init__(
        self,
        run: RunFolder,
        resume_step: int = 0,
        tracking: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            tracking: fields of the recipe's section, in addition to the mode.
            facts: values sent to W&B in addition to the recipe.
        """
        self.notices: list[str] = []
        self.record = MetricsFile(run.metrics, resume_step)
        values = tiny_values(Path("/dataset"))
        values["tracking"] |= tracking or {}
        recipe = Recipe.of(values).training()
        mode = os.environ.get("WANDB_MODE", "offline")
        self.tracker = WandbTracker(recipe, run, mode, self.notices.append, facts)

    def append(self, *lines: Line) -> None:
        for line in lines:
            self.record.append(line)
            self.tracker.update()

    def train(self, first: int, last: int) -> None:
        self.append(*map(train_line, range(first, last + 1)))

    def end(self) -> None:
        self.record.close()
        self.tracker.finish()


def train_offline_instead(run: RunFolder) -> None:
    """Check that a start without access to the server names the command to upload its data."""
    start = Start(run)
    (notice,) = start.notices
    assert "cannot be reached" in notice
    assert f"wandb sync {run.path}/wandb/offline-run-" in notice
    start.train(1, 5)
    start.end()


def steps_of(run: RunFolder) -> list[int]:
    return [row["_step"] for row in history(run.path)]


def in_a_process(job: Callable[..., Any], *arguments: Any) -> int:
    """Run a job in a process, so that W&B's end affects no other test; return the exit code."""
    process = multiprocessing.get_context("spawn").Process(target=job, args=arguments)
    os.environ.pop("WANDB_SERVICE", None)
    process.start()
    process.join(HANG_SECONDS)
    code = process.exitcode
    assert code is not None, "the job hangs"
    return code


def in_a_forked_process(job: Callable[..., Any], *arguments: Any) -> int:
    """Run a job like `in_a_process` without importing torch again.

    No exit handlers run, and the interpreter is not finalised, so the job must end W&B.
    """
    with tempfile.NamedTemporaryFile() as errors:
        environment = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
        process = preloaded_context().Process(
            target=_with_environment, args=(environment, errors.name, job, arguments)
        )
        process.start()
        process.join(HANG_SECONDS)
        os.write(sys.__stderr__.fileno(), Path(errors.name).read_bytes())
    code: int | None = process.exitcode
    assert code is not None, "the job hangs"
    return code


def _with_environment(
    environment: dict[str, str], errors: str, job: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)
    job(*arguments)


def train(run: RunFolder, resume_step: int, last_step: int) -> None:
    start = Start(run, resume_step)
    if resume_step:
        start.append(Resumed(step=resume_step, from_step=resume_step))
    start.train(resume_step + 1, last_step)
    start.end()
    assert start.notices == []


def train_and_be_killed(run: RunFolder) -> None:
    Start(run).train(1, 10)
    os.kill(os.getpid(), 9)


def train_while_wandb_dies(run: RunFolder) -> None:
    start = Start(run)
    start.train(1, 10)
    wait_until(lambda: last_logged_step(run.path / "wandb") == 9)
    core = _wandb_core(run)
    core.kill()
    core.wait()
    start.train(11, 20)
    wait_until(lambda: start.notices)
    start.train(21, 30)
    start.end()
    assert len(start.notices) == 1, start.notices
    assert "W&B has failed" in start.notices[0]


def train_while_wandb_hangs(run: RunFolder) -> None:
    plant(trainer.tracking.wandb_tracker, FINISH_SECONDS=1.0)
    start = Start(run)
    start.train(1, 2)
    core = _wandb_core(run)
    core.suspend()
    start.train(3, 2000)
    start.end()
    assert len(start.notices) == 1, start.notices
    assert "did not finish" in start.notices[0]
    core.kill()
    # Python 3.11 may abort if a thread returns from C code during the interpreter's finalisation.
    for thread in threading.enumerate():
        if thread.name == "wandb":
            thread.join()


def train_on_a_disk_that_gets_full(disk: Path) -> dict[str, Any]:
    """Return the steps in W&B's files at several times, the notices, and standard error."""
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        found = _train_on_a_disk_that_gets_full(disk)
    return found | {"stderr": errors.getvalue()}


def _train_on_a_disk_that_gets_full(disk: Path) -> dict[str, Any]:
    plant(trainer.tracking.wandb_tracker, FLUSH_SECONDS=0.5)
    run, ballast = make_run(disk / "run"), disk / "ballast"
    found: dict[str, Any] = {}

    start = Start(run)
    start.train(1, 100)
    wait_until(lambda: last_logged_step(run.path / "wandb") == 99)
    _fill_disk(ballast)
    start.train(101, 1000)
    time.sleep(2 * trainer.tracking.wandb_tracker.FLUSH_SECONDS)
    ballast.unlink()
    start.train(1001, 1100)
    start.end()
    found["there was room again"] = steps_of(run)

    start = Start(run, 1100)
    start.train(1101, 1200)
    wait_until(lambda: last_logged_step(run.path / "wandb") == 1199)
    _fill_disk(ballast)
    logging.getLogger("wandb.sdk").error("What W&B logs has no room either.")
    start.train(1201, 1300)
    _end_without_room(start)
    found["the disk stayed full"] = steps_of(run)
    found["recorded"] = read_metrics(run.metrics)[-1].step
    found["notices"] = start.notices
    start = Start(run, 1200)  # on the full disk
    start.train(1201, 1300)
    _end_without_room(start)

    ballast.unlink()
    start = Start(run, 1200)
    start.train(1201, 1400)
    start.end()
    found["in the end"] = steps_of(run)
    return found


def _end_without_room(start: Start) -> None:
    try:
        start.record.close()
    except RunError:
        start.tracker.finish()
    else:
        raise AssertionError("the record had room")


def _fill_disk(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    assert shutil.disk_usage(ballast).free == 0


def _wandb_core(run: RunFolder) -> psutil.Process:
    """Return W&B's process that writes a run's file."""
    for process in psutil.Process().children(recursive=True):
        if any(file.path.endswith(".wandb") for file in process.open_files()):
            return process
    raise AssertionError("W&B's process has no file of the run open")
