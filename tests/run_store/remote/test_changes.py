"""Changes by commands that do not train a run: the objects that they replace are deleted."""

import pytest
from support.records.lines import train_line
from support.records.run_folders import made_run

from data_pipeline.storage.object_store import ObjectStore
from run_store.remote.changes import add_files, remove_checkpoints
from run_store.remote.files import KnownFiles
from run_store.remote.head import HeadObject
from run_store.remote.pull import RunPuller
from run_store.remote.push_pull import push_run

pytestmark = pytest.mark.usefixtures("s3_environment")


@pytest.fixture
def url(s3_server, tmp_path):
    """Push a run that no process trains, and return its URL."""
    url = f"{s3_server.bucket('changes')}/one"
    push_run(made_run(tmp_path / "made" / "one", train_line(1)), url)
    return url


def test_adding_a_file_again_replaces_the_former_file_and_its_object(url, tmp_path):
    counts = []
    for text in ("first", "second", "third"):
        (tmp_path / "added").mkdir(exist_ok=True)
        (tmp_path / "added" / "score.json").write_text(text)
        add_files(url, tmp_path / "added")
        counts.append(len(list(ObjectStore(url).list())))
        RunPuller(ObjectStore(url), KnownFiles(tmp_path / "view")).pull()
        assert (tmp_path / "view" / "score.json").read_text() == text
    assert len(set(counts)) == 1


def test_files_added_by_two_commands_are_both_stored(url, tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
        add_files(url, tmp_path / name)
    RunPuller(ObjectStore(url), KnownFiles(tmp_path / "view")).pull()
    assert {(tmp_path / "view" / name).read_text() for name in ("a.json", "b.json")} == {
        "a.json",
        "b.json",
    }


def test_a_command_that_removes_checkpoints_releases_the_run(url):
    for removals in (1, 2):
        remove_checkpoints(url, [f"step-{removals}"])
        owner = HeadObject(ObjectStore(url)).read().owner
        assert owner.released
