"""A NaN in one slot of one rank: no rank applies the step."""

import pytest
from support.faults.stage import opened_stage

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import folder_name
from run_store.record.metrics_lines import SkippedLine

pytestmark = pytest.mark.chaos

STEP = 7
OPTIONS = ("trainer.max_steps=10", "checkpoints.every_steps=1", "checkpoints.keep_last=10")


def test_a_step_with_a_nan_on_one_rank_changes_no_state(tmp_path):
    with opened_stage(tmp_path) as stage:
        trial = stage.trial(*OPTIONS)
        stage.cluster.orders.poison(STEP, rank=1)
        trial.start()
        assert trial.end() == 0, trial.story()
        (skipped,) = trial.lines(SkippedLine)
        assert (skipped.step, skipped.ranks, skipped.slots) == (STEP, [1], [3])
        headers = [
            Checkpoint(trial.run.checkpoints / folder_name(step)).header
            for step in (STEP - 1, STEP, STEP + 1)
        ]
        before, same, after = ([file.sha256 for file in header.files] for header in headers)
        assert before == same
        assert same != after
        assert trial.curve().digests == stage.undisturbed(*OPTIONS).digests
