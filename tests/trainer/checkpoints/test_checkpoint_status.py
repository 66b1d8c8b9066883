"""Checkpoints at a glance: complete, damaged, set aside."""

import os

from support.records.run_folders import made_run, with_checkpoint

from trainer.checkpoints import checkpoint_status
from trainer.checkpoints.checkpoint_status import HEADERS_READ, CheckpointFolder, checkpoint_rows
from trainer.checkpoints.folder_names import folder_name, list_checkpoints
from trainer.checkpoints.format import HEADER
from trainer.checkpoints.state_file import FileRecord

STATE = "state-00000-of-00001.safetensors"


def run_with(tmp_path, *steps):
    run = made_run(tmp_path / "run")
    for step in steps:
        file = FileRecord(name=STATE, bytes=3, sha256="0")
        with_checkpoint(run, step, files=[file])
        (run / "checkpoints" / folder_name(step) / STATE).write_bytes(b"abc")
    return run / "checkpoints"


def problems(checkpoints, most=6):
    return {one.step: one.problem for one in checkpoints.newest(most)}


def test_the_newest_come_first(tmp_path):
    folder = run_with(tmp_path, 5, 10, 15)
    found = CheckpointFolder(folder).newest(2)
    assert [(one.step, one.bytes, one.problem) for one in found] == [(15, 3, None), (10, 3, None)]


def test_what_is_wrong_is_told(tmp_path):
    folder = run_with(tmp_path, 1, 2, 3, 4, 5)
    (folder / folder_name(1) / STATE).write_bytes(b"ab")
    (folder / folder_name(2) / STATE).unlink()
    (folder / folder_name(3) / HEADER).write_text("{")
    (folder / folder_name(4)).rename(folder / f"damaged-{folder_name(4)}")
    found = problems(CheckpointFolder(folder))
    assert found[1] == f"{STATE} has 2 bytes, but {HEADER} says 3"
    assert found[2] == f"{STATE}: No such file or directory"
    assert "is damaged" in found[3]
    assert found[4] == "set aside as damaged"
    assert found[5] is None


def test_a_file_that_is_cut_later_is_noticed_and_headers_are_read_once(tmp_path, monkeypatch):
    folder = run_with(tmp_path, 1, 2)
    read = []
    header_of = checkpoint_status.read_header
    monkeypatch.setattr(
        checkpoint_status, "read_header", lambda p: read.append(p.name) or header_of(p)
    )
    checkpoints = CheckpointFolder(folder)
    assert problems(checkpoints) == {1: None, 2: None}
    (folder / folder_name(2) / STATE).write_bytes(b"")
    assert problems(checkpoints)[2] is not None
    assert sorted(read) == [folder_name(1), folder_name(2)]


def test_a_folder_that_is_not_there_has_none(tmp_path):
    assert CheckpointFolder(tmp_path / "nothing").newest(6) == []


def test_the_time_is_that_of_the_last_change_in_seconds(tmp_path):
    folder = run_with(tmp_path, 1, 2)
    os.utime(folder / folder_name(1) / HEADER, ns=(0, 1_500_000_000))
    (folder / folder_name(2) / HEADER).unlink()
    os.utime(folder / folder_name(2), ns=(0, 2_500_000_000))
    times = {one.step: one.time for one in CheckpointFolder(folder).newest(6)}
    assert times == {1: 1.5, 2: 2.5}


def test_a_header_of_another_format_is_told_and_other_folders_are_not_counted(tmp_path):
    folder = run_with(tmp_path, 1)
    (folder / "damaged-step-x").mkdir()
    (folder / "damaged-by-hand").mkdir()
    header = folder / folder_name(1) / HEADER
    header.write_text(header.read_text().replace("checkpoint/2", "checkpoint/9"))
    (one,) = CheckpointFolder(folder).newest(6)
    assert "transloom-checkpoint/9" in one.problem
    assert one.bytes == 0


def test_damaged_ones_are_in_order_with_the_others(tmp_path):
    folder = run_with(tmp_path, 1, 2, 3)
    (folder / folder_name(2)).rename(folder / f"damaged-{folder_name(2)}")
    assert [one.step for one in CheckpointFolder(folder).newest(2)] == [3, 2]


def test_a_header_that_changes_is_read_again(tmp_path):
    folder = run_with(tmp_path, 1)
    checkpoints = CheckpointFolder(folder)
    assert problems(checkpoints) == {1: None}
    (folder / folder_name(1) / HEADER).write_text("{")
    os.utime(folder / folder_name(1) / HEADER, ns=(0, 1))
    assert "is damaged" in problems(checkpoints)[1]


def test_rows_are_complete_damaged_or_being_written(tmp_path):
    folder = run_with(tmp_path, 1, 2)
    (folder / folder_name(2) / HEADER).write_text("{")
    for step in (1, 3):  # that of step 1 is complete
        (folder / ".work-1" / f"{folder_name(step)}-abc").mkdir(parents=True)
    rows, header = checkpoint_rows(folder, list_checkpoints(folder))
    assert [(row.step, row.state, row.bytes) for row in rows] == [
        (1, "complete", 3),
        (2, "damaged", None),
        (3, "writing", None),
    ]
    assert header.step == 1
    assert None not in [row.time for row in rows]


def test_headers_of_old_checkpoints_are_not_read(tmp_path):
    folder = run_with(tmp_path, *range(1, HEADERS_READ + 3))
    rows, header = checkpoint_rows(folder, list_checkpoints(folder))
    assert [row.bytes for row in rows] == [None, None] + [3] * HEADERS_READ
    assert header.step == HEADERS_READ + 2
    assert checkpoint_rows(folder / "nothing", []) == ([], None)
