"""Status of checkpoints: complete, damaged, set aside."""

from support.records.run_folders import made_run, with_checkpoint

from run_store.checkpoints.checkpoint_status import HEADERS_READ, checkpoint_rows
from run_store.checkpoints.folder_names import folder_name, list_checkpoints
from run_store.checkpoints.format import HEADER
from run_store.checkpoints.state_file import FileRecord

STATE = "state-00000-of-00001.safetensors"


def run_with(tmp_path, *steps):
    run = made_run(tmp_path / "run")
    for step in steps:
        file = FileRecord(name=STATE, bytes=3, sha256="0")
        with_checkpoint(run, step, files=[file])
        (run / "checkpoints" / folder_name(step) / STATE).write_bytes(b"abc")
    return run / "checkpoints"


def test_rows_show_complete_damaged_and_unfinished_checkpoints(tmp_path):
    folder = run_with(tmp_path, 1, 2, 4, 5)
    (folder / folder_name(2) / HEADER).write_text("{")
    (folder / folder_name(4) / STATE).write_bytes(b"ab")
    (folder / folder_name(5) / STATE).unlink()
    for step in (1, 3):  # step 1 is also complete, so its leftover work folder is not listed
        (folder / ".work-1" / f"{folder_name(step)}-abc").mkdir(parents=True)
    rows, header = checkpoint_rows(folder, list_checkpoints(folder))
    assert [(row.step, row.state, row.bytes) for row in rows] == [
        (1, "complete", 3),
        (2, "damaged", None),
        (4, "damaged", 3),
        (5, "damaged", 3),
        (3, "writing", None),
    ]
    assert header.step == 5
    assert None not in [row.time for row in rows]


def test_headers_of_old_checkpoints_are_not_read(tmp_path):
    folder = run_with(tmp_path, *range(1, HEADERS_READ + 3))
    rows, header = checkpoint_rows(folder, list_checkpoints(folder))
    assert [row.bytes for row in rows] == [None, None] + [3] * HEADERS_READ
    assert header.step == HEADERS_READ + 2
    assert checkpoint_rows(folder / "nothing", []) == ([], None)
