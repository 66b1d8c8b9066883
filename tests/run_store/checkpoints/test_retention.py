"""Selection of the checkpoints to keep."""

import pytest
import torch
from support.records.checkpoints import make_header, save_checkpoint, work_folder

from run_store.checkpoints import commit as commits
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.retention import prune, superfluous
from run_store.config import CheckpointsConfig
from trainer.tasks.translation import translation_scores

#          step: loss, bleu
SCORES = {10: (3.0, 9.0), 20: (1.0, 5.0), 30: None, 40: (2.0, 9.0), 50: (2.5, 1.0)}


@pytest.fixture
def checkpoints(tmp_path):
    """Save five checkpoints, one of them without scores, and return their folder."""
    for step, values in SCORES.items():
        header = make_header(step, scores=translation_scores(*values) if values else {})
        save_checkpoint(tmp_path, header, [[Fragment("master", "w", 0, torch.ones(4))]])
    return tmp_path


def staying(checkpoints):
    return [int(path.name[-2:]) for path in list_checkpoints(checkpoints)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"keep_last": 2, "keep_best": 0}, [40, 50]),
        ({"keep_last": 2, "keep_best": 1}, [20, 40, 50]),
        ({"keep_last": 1, "keep_best": 2}, [20, 40, 50]),
        ({"keep_last": 1, "keep_best": 1, "best_by": "bleu"}, [40, 50]),  # ties keep the newer one
        ({"keep_last": 1, "keep_best": 3, "best_by": "bleu"}, [10, 20, 40, 50]),
        ({"keep_last": 1, "keep_best": 0, "keep_every_steps": 20}, [20, 40, 50]),
        ({"keep_last": 9, "keep_best": 9}, [10, 20, 30, 40, 50]),
    ],
    ids=str,
)
def test_the_newest_the_best_and_every_kth_checkpoint_are_kept(checkpoints, settings, expected):
    config = CheckpointsConfig(**settings)
    found = superfluous(checkpoints, config)
    assert staying(checkpoints) == list(SCORES)
    assert prune(checkpoints, work_folder(checkpoints), config) == found
    assert staying(checkpoints) == expected
    assert superfluous(checkpoints, config) == []
    assert list(work_folder(checkpoints).iterdir()) == []


def test_a_checkpoint_with_a_damaged_header_does_not_count_as_newest(checkpoints):
    for step in (10, 50):
        (checkpoints / f"step-000000{step}" / HEADER).write_text("{")
    prune(checkpoints, work_folder(checkpoints), CheckpointsConfig(keep_last=1, keep_best=0))
    assert staying(checkpoints) == [40, 50]  # step 50 is set aside at the next start


def test_nothing_is_removed_if_no_checkpoint_is_readable(checkpoints):
    for path in list_checkpoints(checkpoints):
        (path / HEADER).write_text("{")
    assert superfluous(checkpoints, CheckpointsConfig(keep_last=1, keep_best=0)) == []


def test_checkpoints_of_another_format_version_are_kept(checkpoints):
    header = checkpoints / "step-00000010" / HEADER
    header.write_text(header.read_text().replace("checkpoint/2", "checkpoint/9"))
    prune(checkpoints, work_folder(checkpoints), CheckpointsConfig(keep_last=1, keep_best=0))
    assert staying(checkpoints) == [10, 50]


def test_a_damaged_checkpoint_between_two_kept_ones_is_removed(checkpoints):
    """A newer checkpoint is kept, and an intact older one replaces the damaged one."""
    (checkpoints / "step-00000040" / HEADER).write_text("{")
    prune(checkpoints, work_folder(checkpoints), CheckpointsConfig(keep_last=2, keep_best=0))
    assert staying(checkpoints) == [30, 50]


def test_step_numbers_of_nine_digits_sort_after_those_of_eight(tmp_path):
    """Names of checkpoints have at least eight digits."""
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, make_header(step), [[Fragment("master", "w", 0, torch.ones(4))]])
    config = CheckpointsConfig(keep_last=1, keep_best=0)
    assert [path.name for path in superfluous(tmp_path, config)] == ["step-99999999"]


def test_checkpoints_are_removed_oldest_first_with_a_sync_after_each(checkpoints, monkeypatch):
    synced = []
    monkeypatch.setattr(commits, "sync_to_disk", lambda folder: synced.append(staying(folder)))
    config = CheckpointsConfig(keep_last=1, keep_best=0)
    removed = prune(checkpoints, work_folder(checkpoints), config)
    assert [path.name[-2:] for path in removed] == ["10", "20", "30", "40"]
    assert synced == [[20, 30, 40, 50], [30, 40, 50], [40, 50], [50]]


def test_checkpoints_without_the_metric_of_best_by_are_not_the_best(tmp_path):
    for step, bleu in ((10, 9.0), (20, None), (30, 1.0)):
        scores = {} if bleu is None else {"bleu": translation_scores(1.0, bleu)["bleu"]}
        header = make_header(step, scores=scores)
        save_checkpoint(tmp_path, header, [[Fragment("master", "w", 0, torch.ones(4))]])
    by_loss = CheckpointsConfig(keep_last=1, keep_best=2, best_by="loss")
    assert [path.name[-2:] for path in superfluous(tmp_path, by_loss)] == ["10", "20"]


def test_setting_a_checkpoint_aside_again_replaces_the_former_copy(checkpoints):
    work = work_folder(checkpoints)
    damaged = checkpoints / "step-00000050"
    aside = commits.set_aside(damaged, work)
    (aside / "first").touch()
    save_checkpoint(checkpoints, make_header(50), [[Fragment("master", "w", 0, torch.ones(4))]])
    assert commits.set_aside(damaged, work) == aside == checkpoints / "damaged-step-00000050"
    assert not (aside / "first").exists()
    assert (aside / HEADER).exists()
    assert not damaged.exists()
    assert list(work.iterdir()) == []
