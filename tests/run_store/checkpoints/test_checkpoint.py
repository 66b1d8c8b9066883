"""Checkpoints on disk: complete or absent, and verified when read."""

import pytest
import torch
from support.files.disk_calls import by_name, record_disk_calls
from support.records.checkpoints import (
    make_header,
    rewrite_header,
    save_checkpoint,
    stepped_share,
    work_folder,
    write_state,
)

from run_store.checkpoints.checkpoint import Checkpoint, newest_intact
from run_store.checkpoints.commit import partial_folder, set_aside
from run_store.checkpoints.folder_names import list_averages, list_checkpoints
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.reader import CheckpointReader
from run_store.checkpoints.retention import prune
from run_store.config import CheckpointsConfig
from run_store.errors import CheckpointError, CheckpointFormatError
from run_store.lease import discard
from trainer.process.placement import Placement


def save(folder, step):
    """Save a checkpoint of one parameter of four elements, written by two ranks, and return it."""
    halves = [stepped_share(step, rank) for rank in range(2)]
    return save_checkpoint(folder, make_header(step), halves)


def test_any_range_of_written_fragments_is_read_back(tmp_path):
    reader = CheckpointReader(save(tmp_path, 10))
    whole = torch.arange(4.0) + 10
    for start in range(4):
        for stop in range(start + 1, 5):
            assert torch.equal(reader.read("master", "w", start, stop), whole[start:stop])
    assert torch.equal(reader.weights()["w"], whole)


def test_a_range_beyond_the_end_of_a_parameter_is_refused(tmp_path):
    reader = CheckpointReader(save(tmp_path, 10))
    with pytest.raises(
        CheckpointError, match=r"up to element 4, but elements up to 5 were requested"
    ):
        reader.read("master", "w", 0, 5)


def test_state_files_are_no_checkpoint_before_the_commit(tmp_path):
    work = work_folder(tmp_path)
    fragments = [Fragment("master", "w", 0, torch.ones(2))]
    write_state(work, make_header(5), fragments, Placement(rank=0, world_size=2))
    partial = partial_folder(work, 5, "a")
    assert partial.is_dir()
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
        (damage_by_flipping, r"has sha256 \w+, but checkpoint.json says \w+"),
        (damage_by_truncating, r"has \d+ bytes, but checkpoint.json says \d+"),
        (lambda path: path.unlink(), r"is missing"),
    ],
)
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_used(tmp_path, damage, message):
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    damage(newest.file_paths()[1])
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(newest.path).verify()
    found, problems = newest_intact(tmp_path)
    assert found.step == 10
    assert list(problems) == [newest.path]
    assert "step-00000020" in problems[newest.path]


def test_all_damaged_checkpoints_after_the_newest_intact_one_are_reported(tmp_path):
    """The checkpoint of step 30, between two kept ones, and the newest one are damaged."""
    kept = [save(tmp_path, step) for step in (10, 20, 30, 40)]
    damage_by_flipping(kept[2].file_paths()[0])
    assert newest_intact(tmp_path)[0].step == 40
    damage_by_truncating(kept[3].file_paths()[1])
    found, problems = newest_intact(tmp_path)
    assert found.step == 20
    assert list(problems) == [kept[3].path, kept[2].path]


def test_files_are_synced_before_their_folder_and_its_name_after_the_rename(tmp_path, monkeypatch):
    calls = record_disk_calls(monkeypatch)
    saved = save(tmp_path, 10)
    assert by_name(calls) == [
        *(("sync", path.name) for path in saved.file_paths()),
        ("sync", HEADER),
        ("sync", "step-00000010-a"),
        ("rename", "step-00000010"),
        ("sync", tmp_path.name),
    ]
    calls.clear()
    aside = ("rename", set_aside(saved.path, work_folder(tmp_path)).name)
    assert by_name(calls) == [aside, aside, ("sync", tmp_path.name)]


def test_a_checkpoint_with_a_damaged_header_is_skipped(tmp_path):
    save(tmp_path, 10)
    damaged = save(tmp_path, 20).path
    (damaged / HEADER).write_text("{")
    found, problems = newest_intact(tmp_path)
    assert found.step == 10
    assert "checkpoint.json is damaged" in problems[damaged]


def test_a_checkpoint_in_the_folder_of_another_step_is_skipped(tmp_path):
    save(tmp_path, 10)
    moved = save(tmp_path, 20).path.rename(tmp_path / "step-00000030")
    found, problems = newest_intact(tmp_path)
    assert found.step == 10
    assert "holds step 20" in problems[moved]


def test_a_changed_digit_in_a_header_is_damage(tmp_path):
    path = save(tmp_path, 10).path / HEADER
    path.write_text(path.read_text().replace('"optimizer_step": 10', '"optimizer_step": 12'))
    with pytest.raises(CheckpointError, match="the sha256 of its fields is not the one in"):
        Checkpoint(path.parent)


def test_a_former_owner_cannot_set_a_checkpoint_aside(tmp_path):
    damaged = save(tmp_path, 10).path
    with pytest.raises(FileNotFoundError):
        set_aside(damaged, tmp_path / ".work-00000001-gone")
    assert damaged.is_dir()


def test_a_damaged_checkpoint_set_aside_is_kept_on_disk_but_not_listed(tmp_path):
    save(tmp_path, 10)
    damaged = save(tmp_path, 20)
    damage_by_flipping(damaged.file_paths()[0])
    aside = set_aside(damaged.path, work_folder(tmp_path))
    assert aside.is_dir()
    save(tmp_path, 15)
    prune(tmp_path, work_folder(tmp_path), CheckpointsConfig(keep_last=1, keep_best=0))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000015"]
    save(tmp_path, 20).verify()  # as when the run passes the step again


@pytest.mark.parametrize("name", ["../state-00000-of-00001.safetensors", "/etc/passwd", "x.pt"])
def test_a_file_outside_the_checkpoint_is_refused(tmp_path, name):
    path = save(tmp_path, 10).path / HEADER
    path.write_text(path.read_text().replace("state-00000-of-00002.safetensors", name))
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint(path.parent)


def test_a_checkpoint_of_another_format_version_is_refused_and_not_skipped(tmp_path):
    """If newest_intact skipped a newer version's checkpoint, the run would lose steps silently."""
    path = save(tmp_path, 10).path / HEADER
    path.write_text(path.read_text().replace("checkpoint/2", "checkpoint/3"))
    with pytest.raises(CheckpointFormatError, match=r"checkpoint/2.*use the version of transloom"):
        newest_intact(tmp_path)


def test_verify_names_the_first_of_two_damaged_files(tmp_path):
    newest = save(tmp_path, 10)
    for file in newest.file_paths():
        damage_by_flipping(file)
    with pytest.raises(CheckpointError, match="state-00000-of-00002"):
        newest.verify()


def test_a_checkpoint_whose_file_cannot_be_read_is_damaged(tmp_path):
    """Reading address 0 of /proc/self/mem fails with an I/O error, as on a damaged disk."""
    save(tmp_path, 10)
    newest = save(tmp_path, 20)
    file = newest.file_paths()[0]
    file.unlink()
    file.symlink_to("/proc/self/mem")
    records = newest.header.files
    records[0] = records[0].model_copy(update={"bytes": 0})
    rewrite_header(newest.path, files=records)
    found, problems = newest_intact(tmp_path)
    assert found.step == 10
    assert "cannot be read: Input/output error" in problems[newest.path]


def test_step_and_average_folders_are_listed_by_step_and_other_names_are_not(tmp_path):
    for name in ("step-100000000", "step-00000020", "step-copy", "damaged-x"):
        (tmp_path / name).mkdir()
    for name in ("average-of-10-20", "average-of-90-100", "average-of-20"):
        (tmp_path / name).mkdir()
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000020", "step-100000000"]
    averages = ["average-of-20", "average-of-10-20", "average-of-90-100"]
    assert [p.name for p in list_averages(tmp_path)] == averages


def test_the_weights_of_a_checkpoint_are_its_moving_average_if_it_has_one(tmp_path):
    ones, twos = torch.ones(4), 2 * torch.ones(4)
    fragments = [Fragment("master", "w", 0, ones), Fragment("ema", "w", 0, twos)]
    reader = CheckpointReader(save_checkpoint(tmp_path, make_header(10), [fragments]))
    assert torch.equal(reader.weights()["w"], twos)
    assert torch.equal(reader.read("master", "w", 0, 4), ones)
