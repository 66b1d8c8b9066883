"""Checkpoints on disk: complete or not there, verified when read, pruned."""

import pytest
import torch
from support.checkpoints import save_checkpoint, work_folder

from trainer.checkpoints.commit import discard, partial_folder
from trainer.checkpoints.format import (
    HEADER,
    Checkpoint,
    CheckpointHeader,
    list_checkpoints,
    newest_intact,
    set_aside,
)
from trainer.checkpoints.reader import CheckpointReader
from trainer.checkpoints.retention import prune
from trainer.checkpoints.state_file import write_state
from trainer.config import CheckpointsConfig
from trainer.errors import CheckpointError, CheckpointFormatError
from trainer.fragments import Fragment


def header(step: int, loss: float | None = None) -> CheckpointHeader:
    return CheckpointHeader(
        step=step,
        optimizer_step=step,
        cursor={"epoch": 0, "window": 0, "offset": step},
        data_digest="0" * 64,
        dataset_identity="d",
        recipe={},
        identity={},
        numerics={},
        parameters={"w": [4]},
        parameter_groups=[],
        validation_loss=loss,
        target_tokens_seen=0,
    )


def save(folder, step, loss=None):
    """A checkpoint of one parameter of four elements, written by two ranks."""
    halves = [
        [Fragment("master", "w", 2 * rank, torch.arange(2.0) + 2 * rank + step)]
        for rank in range(2)
    ]
    return save_checkpoint(folder, header(step, loss), halves)


def test_what_is_written_is_read_back_in_any_range(tmp_path):
    reader = CheckpointReader(save(tmp_path, 10))
    whole = torch.arange(4.0) + 10
    for start in range(4):
        for stop in range(start + 1, 5):
            assert torch.equal(reader.read("master", "w", start, stop), whole[start:stop])
    assert torch.equal(reader.weights()["w"], whole)


def test_a_range_that_is_not_there_is_an_error(tmp_path):
    reader = CheckpointReader(save(tmp_path, 10))
    with pytest.raises(CheckpointError, match=r"up to element 4, not the 5"):
        reader.read("master", "w", 0, 5)


def test_before_the_commit_there_is_no_checkpoint(tmp_path):
    partial = partial_folder(work_folder(tmp_path), 5, "a")
    write_state(partial, 0, 2, [Fragment("master", "w", 0, torch.ones(2))])
    assert list_checkpoints(tmp_path) == []
    discard(partial)
    assert not partial.exists()


def damage_by_flipping(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_by_truncating(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_by_flipping, r"has sha256 \w+, checkpoint.json says \w+"),
        (damage_by_truncating, r"has \d+ bytes, checkpoint.json says \d+"),
        (lambda path: path.unlink(), r"is missing"),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(tmp_path, damage, message):
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    damage(newest.file_paths()[1])
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(newest.path).verify()
    found, problems = newest_intact(tmp_path)
    assert found.step == 10
    assert list(problems) == [newest.path]
    assert "step-00000020" in problems[newest.path]


def test_a_damaged_header_is_passed_over_too(tmp_path):
    save(tmp_path, 10)
    damaged = save(tmp_path, 20).path
    (damaged / HEADER).write_text("{")
    found, problems = newest_intact(tmp_path)
    assert found.step == 10
    assert "checkpoint.json is damaged" in problems[damaged]


def test_a_damaged_one_that_was_set_aside_neither_counts_nor_is_lost(tmp_path):
    save(tmp_path, 10)
    damaged = save(tmp_path, 20)
    damage_by_flipping(damaged.file_paths()[0])
    aside = set_aside(damaged.path)
    assert aside.is_dir()
    save(tmp_path, 15)
    prune(tmp_path, work_folder(tmp_path), CheckpointsConfig(keep_last=1, keep_best=0))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000015"]
    save(tmp_path, 20).verify()  # the run has passed the step again


@pytest.mark.parametrize("name", ["../state-00000-of-00001.safetensors", "/etc/passwd", "x.pt"])
def test_a_file_outside_the_checkpoint_is_refused(tmp_path, name):
    path = save(tmp_path, 10).path / HEADER
    path.write_text(path.read_text().replace("state-00000-of-00002.safetensors", name))
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint(path.parent)


def test_the_last_and_the_best_stay(tmp_path):
    for step, loss in [(10, 3.0), (20, 1.0), (30, None), (40, 2.0), (50, 2.5)]:
        save(tmp_path, step, loss)
    removed = prune(tmp_path, work_folder(tmp_path), CheckpointsConfig(keep_last=2, keep_best=1))
    assert [path.name for path in removed] == ["step-00000010", "step-00000030"]
    assert [path.name[-2:] for path in list_checkpoints(tmp_path)] == ["20", "40", "50"]


def test_an_unreadable_checkpoint_does_not_stop_the_pruning(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    (tmp_path / "step-00000010" / HEADER).write_text("{")
    prune(tmp_path, work_folder(tmp_path), CheckpointsConfig(keep_last=1, keep_best=1))
    assert [path.name[-2:] for path in list_checkpoints(tmp_path)] == ["30"]


def test_another_format_is_not_taken_for_damage(tmp_path):
    """A newer version's checkpoint must not be passed over in silence."""
    path = save(tmp_path, 10).path / HEADER
    path.write_text(path.read_text().replace("checkpoint/1", "checkpoint/2"))
    with pytest.raises(CheckpointFormatError, match=r"checkpoint/2.*use the version that wrote it"):
        newest_intact(tmp_path)


def test_a_full_disk_or_a_forbidden_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot be written.*start the same command again"):
        write_state(tmp_path / "file" / "x", 0, 1, [Fragment("master", "w", 0, torch.ones(2))])
