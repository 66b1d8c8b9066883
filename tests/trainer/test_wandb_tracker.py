"""W&B over restarts: one history in its files, whatever was killed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from support.recipes import tiny_recipe

from trainer.metrics import MetricsRecord
from trainer.run_folder import RunCard, RunFolder
from trainer.wandb_tracker import WandbTracker, history_steps, last_logged_step


def make_run(path: Path) -> RunFolder:
    run = RunFolder(path)
    path.mkdir()
    card = RunCard(id="abcd1234", name="r", dataset_identity="", identity={})
    run.card_path.write_text(card.model_dump_json())
    return run


def all_steps(run: RunFolder) -> list[int]:
    files = sorted((run.path / "wandb").glob("*run-*/run-*.wandb"))
    return [step for file in files for step in history_steps(file)]


def test_a_gap_left_by_a_killed_run_is_refilled_from_the_record(tmp_path):
    run = make_run(tmp_path / "run")
    program = textwrap.dedent(
        f"""
        import os, sys
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from support.recipes import tiny_recipe
        from trainer.metrics import MetricsRecord
        from trainer.run_folder import RunFolder
        from trainer.wandb_tracker import WandbTracker
        run = RunFolder(Path({str(run.path)!r}))
        record = MetricsRecord(run.metrics, 0)
        tracker = WandbTracker(tiny_recipe(Path("/dataset")).training(), run)
        for step in range(1, 11):
            for line in record.append({{"step": step, "kind": "train", "loss": 1.0 / step}}):
                tracker.log(line)
        os.kill(os.getpid(), 9)
        """
    )
    # A W&B service of its own, not the one of earlier tests in this process.
    environment = {k: v for k, v in os.environ.items() if "SERVICE" not in k}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == -9
    assert last_logged_step(run.path / "wandb") < 10, "W&B lost nothing: the test shows nothing"

    record = MetricsRecord(run.metrics, 8)
    tracker = WandbTracker(tiny_recipe(Path("/dataset")).training(), run)
    for step in range(11, 13):
        for line in record.append({"step": step, "kind": "train", "loss": 1.0 / step}):
            tracker.log(line)
    record.close()
    tracker.finish()
    assert all_steps(run) == list(range(1, 13))
    assert last_logged_step(run.path / "wandb") == 12


def test_a_long_history_is_read_to_its_end(tmp_path):
    """Records that cross the 32 KiB blocks of W&B's files."""
    run = make_run(tmp_path / "run")
    tracker = WandbTracker(tiny_recipe(Path("/dataset")).training(), run)
    for step in range(1, 201):
        tracker.log({"step": step, "kind": "train", "note": "x" * (step * 7)})
    tracker.finish()
    assert all_steps(run) == list(range(1, 201))


def test_no_folder_means_nothing_logged(tmp_path):
    assert last_logged_step(tmp_path / "wandb") == 0
