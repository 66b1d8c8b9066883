"""Cached exports of a run: written once, rewritten if damaged, safe for two processes."""

import errno
import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from transloom.inference.ctranslate2.export_cache import (
    CARD,
    UNFINISHED_MAX_AGE_SECONDS,
    ExportOrigin,
    cached_files,
)


@pytest.fixture
def origin():
    return ExportOrigin(
        checkpoint="step-00000002",
        checkpoint_sha256="ab" * 32,
        positions=1024,
        library="4.8.5",
    )


@pytest.fixture
def engines(tmp_path):
    (tmp_path / "checkpoints" / "step-00000002").mkdir(parents=True)
    return tmp_path / "engines"


class Conversion:
    """A conversion that writes two files and records each folder."""

    def __init__(self):
        self.folders: list[Path] = []

    def __call__(self, folder):
        self.folders.append(folder)
        (folder / "model.bin").write_bytes(b"weights")
        (folder / "config.json").write_bytes(b"{}")


WRITTEN = {"config.json": b"{}", "model.bin": b"weights"}


def kept(engines):
    return list((engines / "ctranslate2").iterdir())


def test_a_checkpoint_is_converted_once(engines, origin):
    write = Conversion()
    assert cached_files(engines, origin, write) == WRITTEN
    assert cached_files(engines, origin, write) == WRITTEN
    assert len(write.folders) == 1
    (folder,) = kept(engines)
    assert folder.name == f"step-00000002-{'ab' * 8}"
    card = json.loads((folder / CARD).read_text())
    assert set(card["files"]) == set(WRITTEN)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.bin").write_bytes(b"weightz"),
        lambda folder: (folder / "model.bin").unlink(),
        lambda folder: (folder / CARD).write_text("{"),
        lambda folder: (folder / CARD).write_text(
            (folder / CARD).read_text().replace("model.bin", "../model.bin")
        ),
    ],
)
def test_a_damaged_export_is_converted_again(engines, origin, damage):
    write = Conversion()
    cached_files(engines, origin, write)
    (folder,) = kept(engines)
    damage(folder)
    assert cached_files(engines, origin, write) == WRITTEN
    assert len(write.folders) == 2
    assert kept(engines) == [folder]
    assert cached_files(engines, origin, write) == WRITTEN
    assert len(write.folders) == 2


def test_a_change_of_library_release_or_positions_causes_a_new_conversion(engines, origin):
    write = Conversion()
    for change in ({}, {"library": "4.9.0"}, {"positions": 2048}):
        cached_files(engines, origin.model_copy(update=change), write)
    assert len(write.folders) == 3
    assert len(kept(engines)) == 1


def test_two_concurrent_conversions_leave_one_complete_model(engines, origin):
    both_write = threading.Barrier(2)
    found = []

    def write(folder):
        both_write.wait()
        Conversion()(folder)

    def find():
        found.append(cached_files(engines, origin, write))

    threads = [threading.Thread(target=find) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [WRITTEN, WRITTEN]
    assert len(kept(engines)) == 1
    assert cached_files(engines, origin, Conversion()) == WRITTEN


def test_a_failed_conversion_leaves_no_files(engines, origin):
    def fail(folder):
        (folder / "model.bin").write_bytes(b"half")
        raise ValueError("no such layer")

    with pytest.raises(ValueError, match="no such layer"):
        cached_files(engines, origin, fail)
    assert kept(engines) == []


def test_exports_of_deleted_checkpoints_are_removed(engines, origin):
    older = origin.model_copy(update={"checkpoint": "step-00000001"})
    cached_files(engines, older, Conversion())
    assert kept(engines) == []  # no export is kept, because the run lacks this checkpoint
    cached_files(engines, origin, Conversion())
    unfinished = engines / "ctranslate2" / ".step-00000002-x.unfinished"
    unfinished.mkdir()
    newer = origin.model_copy(update={"checkpoint_sha256": "cd" * 32})
    cached_files(engines, newer, Conversion())
    assert unfinished in kept(engines)  # another process may be writing there
    assert len(kept(engines)) == 3


def test_a_temporary_folder_is_used_if_the_cache_is_not_writable(origin, caplog):
    write = Conversion()
    nowhere = Path("/sys/kernel/engines")  # no process can create this folder
    assert cached_files(nowhere, origin, write) == WRITTEN
    assert "cannot be written" in caplog.text
    (temporary,) = write.folders
    assert not temporary.exists()


def test_files_of_a_killed_process_are_removed_after_a_day(engines, origin):
    old, young = (engines / "ctranslate2" / f".step-{age}.unfinished" for age in ("old", "young"))
    for folder, seconds in (
        (old, UNFINISHED_MAX_AGE_SECONDS + 60),
        (young, UNFINISHED_MAX_AGE_SECONDS - 60),
    ):
        folder.mkdir(parents=True)
        begun = time.time() - seconds
        os.utime(folder, (begun, begun))
    cached_files(engines, origin, Conversion())
    assert not old.exists()
    assert young.exists()
    assert len(kept(engines)) == 2


def test_the_card_of_an_export_names_its_origin_and_hashes(engines, origin):
    cached_files(engines, origin, Conversion())
    (folder,) = kept(engines)
    card = json.loads((folder / CARD).read_text())
    assert card["origin"] == {**origin.model_dump(), "form": 1}
    assert card["version"] == 1
    assert card["files"]["model.bin"] == hashlib.sha256(b"weights").hexdigest()


def test_a_file_in_place_of_the_cache_folder_is_an_error(tmp_path, origin):
    """If only permissions are missing, a temporary folder is used instead."""
    (tmp_path / "engines").write_text("a file")
    write = Conversion()
    with pytest.raises(NotADirectoryError):
        cached_files(tmp_path / "engines", origin, write)
    assert not write.folders


def test_a_temporary_folder_is_used_if_the_disk_becomes_full(engines, origin, caplog):
    complete = Conversion()

    def fill(folder):
        if folder.is_relative_to(engines):
            raise OSError(errno.ENOSPC, "No space left on device")
        complete(folder)

    assert cached_files(engines, origin, fill) == WRITTEN
    assert "No space left on device" in caplog.text
    assert kept(engines) == []

    def fail(folder):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        cached_files(engines, origin, fail)
    assert kept(engines) == []
