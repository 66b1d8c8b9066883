"""Choice of the checkpoints to keep."""

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
    """Five, of which one had no validation."""
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
        ({"keep_last": 1, "keep_best": 1, "best_by": "bleu"}, [40, 50]),  # the newer of equals
        ({"keep_last": 1, "keep_best": 3, "best_by": "bleu"}, [10, 20, 40, 50]),
        ({"keep_last": 1, "keep_best": 0, "keep_every_steps": 20}, [20, 40, 50]),
        ({"keep_last": 9, "keep_best": 9}, [10, 20, 30, 40, 50]),
    ],
    ids=str,
)
def test_the_newest_the_best_and_every_kth_stay(checkpoints, settings, expected):
    config = CheckpointsConfig(**settings)
    found = superfluous(checkpoints, config)
    assert staying(checkpoints) == list(SCORES)
    assert prune(checkpoints, work_folder(checkpoints), config) == found
    assert staying(checkpoints) == expected
    assert superfluous(checkpoints, config) == []
    assert list(work_folder(checkpoints).iterdir()) == []


def test_a_damaged_header_does_not_count(checkpoints):
    for step in (10, 50):
        (checkpoints / f"step-000000{step}" / HEADER).write_text("{")
    prune(checkpoints, work_folder(checkpoints), CheckpointsConfig(keep_last=1, keep_best=0))
    assert staying(checkpoints) == [40, 50]  # 50 is set aside at the next start


def test_without_a_readable_one_nothing_goes(checkpoints):
    for path in list_checkpoints(checkpoints):
        (path / HEADER).write_text("{")
    assert superfluous(checkpoints, CheckpointsConfig(keep_last=1, keep_best=0)) == []


def test_another_versions_stay(checkpoints):
    header = checkpoints / "step-00000010" / HEADER
    header.write_text(header.read_text().replace("checkpoint/2", "checkpoint/9"))
    prune(checkpoints, work_folder(checkpoints), CheckpointsConfig(keep_last=1, keep_best=0))
    assert staying(checkpoints) == [10, 50]


def test_a_damaged_one_between_two_that_stay_goes(checkpoints):
    """A damaged checkpoint is of no use: a newer one stays, and an intact one replaces it."""
    (checkpoints / "step-00000040" / HEADER).write_text("{")
    prune(checkpoints, work_folder(checkpoints), CheckpointsConfig(keep_last=2, keep_best=0))
    assert staying(checkpoints) == [30, 50]


def test_a_hundred_million_steps_come_after_those_before_them(tmp_path):
    """Names have eight digits, and more where they need more."""
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, make_header(step), [[Fragment("master", "w", 0, torch.ones(4))]])
    config = CheckpointsConfig(keep_last=1, keep_best=0)
    assert [path.name for path in superfluous(tmp_path, config)] == ["step-99999999"]


def test_removed_checkpoints_are_named_oldest_first_and_synced(checkpoints, monkeypatch):
    synced = []
    monkeypatch.setattr(commits, "sync_to_disk", lambda folder: synced.append(staying(folder)))
    config = CheckpointsConfig(keep_last=1, keep_best=0)
    removed = prune(checkpoints, work_folder(checkpoints), config)
    assert [path.name[-2:] for path in removed] == ["10", "20", "30", "40"]
    assert synced == [[20, 30, 40, 50], [30, 40, 50], [40, 50], [50]]


def test_a_validation_of_another_metric_does_not_make_the_best(tmp_path):
    for step, bleu in ((10, 9.0), (20, None), (30, 1.0)):
        scores = {} if bleu is None else {"bleu": translation_scores(1.0, bleu)["bleu"]}
        header = make_header(step, scores=scores)
        save_checkpoint(tmp_path, header, [[Fragment("master", "w", 0, torch.ones(4))]])
    by_loss = CheckpointsConfig(keep_last=1, keep_best=2, best_by="loss")
    assert [path.name[-2:] for path in superfluous(tmp_path, by_loss)] == ["10", "20"]


def test_one_that_was_set_aside_twice_is_kept_once(checkpoints):
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
