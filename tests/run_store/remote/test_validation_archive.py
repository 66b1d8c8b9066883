"""Old validation texts are packed into archives, and none is lost."""

import zipfile

import pytest

from run_store.remote import validation_archive
from run_store.remote.validation_archive import archive_validations


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(validation_archive, "TEXTS_PER_ARCHIVE", 3)


def texts_in(folder):
    found = {path.name: path.read_text() for path in folder.glob("*.txt")}
    for path in folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            found |= {name: archive.read(name).decode() for name in archive.namelist()}
    return found


def test_the_oldest_texts_are_packed_and_the_newest_stay_files(tmp_path):
    expected = {"test-00000001-beam4-alpha0.6.txt": "a test's", "validation-x.txt": "no step's"}
    for name, text in expected.items():
        (tmp_path / name).write_text(text)
    for step in range(10, 180, 10):
        name = f"validation-{step:08d}.txt"
        (tmp_path / name).write_text(f"of step {step}\n")
        expected[name] = f"of step {step}\n"
        archive_validations(tmp_path)
        assert texts_in(tmp_path) == expected
        assert len(list(tmp_path.glob("validation-0*.txt"))) < 2 * 3
    assert sorted(path.name for path in tmp_path.glob("*.zip"))[:2] == [
        "validation-00000010-00000030.zip",
        "validation-00000040-00000060.zip",
    ]


def test_an_interrupted_archiving_loses_no_text(tmp_path, monkeypatch):
    for step in range(6):
        (tmp_path / f"validation-{step:08d}.txt").write_text(str(step))
    expected = texts_in(tmp_path)
    unlink = type(tmp_path).unlink

    def fail_after_one(path, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", fail_after_one)
        with pytest.raises(KeyboardInterrupt):
            archive_validations(tmp_path)
    monkeypatch.setattr(validation_archive, "TEXTS_PER_ARCHIVE", 2)
    assert texts_in(tmp_path) == expected
    assert archive_validations(tmp_path)
    assert texts_in(tmp_path) == expected


def test_nothing_is_archived_if_the_folder_is_missing(tmp_path):
    assert archive_validations(tmp_path / "translations") is None
