"""A run folder sends requests to a URL only if the user has named that URL."""

import shutil

import pytest

from run_store.errors import CheckpointError
from run_store.run_copies import mirror_folder, register_copy, require_named_url, view_folder

URL = "s3://bucket/our/runs/one"
STATES = f"{URL}/owners/00000001/step-00000001-ab"
NAME = "checkpoints/step-00000001"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("folder", [mirror_folder, view_folder])
def test_the_cache_folder_of_a_url_may_send_requests_to_it(folder):
    require_named_url(folder(URL) / NAME, STATES)
    require_named_url(folder(URL) / "checkpoints/.work-00000001-ab/step-00000001", STATES)


def test_a_copy_registered_by_this_process_may_send_requests_to_its_url(tmp_path):
    with pytest.raises(CheckpointError, match=f"checkpoints verify {URL}`"):
        require_named_url(tmp_path / "mine" / NAME, STATES)
    register_copy(tmp_path / "mine", URL)
    require_named_url(tmp_path / "mine" / NAME, STATES)


@pytest.mark.parametrize(
    "states",
    [
        "s3://bucket/our/runs/one-other/owners/00000001/x",
        "s3://other/our/runs/one/owners/00000001/x",
        "s3://bucket/our/runs",
        "",
    ],
)
def test_no_folder_may_send_requests_to_a_url_of_another_run(tmp_path, states):
    register_copy(tmp_path / "mine", URL)
    for folder in (tmp_path / "mine", view_folder(URL), mirror_folder(URL)):
        with pytest.raises(CheckpointError, match="nothing is requested from there"):
            require_named_url(folder / NAME, states)


def test_a_cache_entry_that_is_a_link_gives_its_target_no_permission(tmp_path):
    foreign = tmp_path / "foreign"
    (foreign / NAME).mkdir(parents=True)
    view = view_folder(URL)
    view.parent.mkdir(parents=True)
    view.symlink_to(foreign)
    with pytest.raises(CheckpointError):
        require_named_url(foreign / NAME, "s3://attacker/x/owners/1/y")
    shutil.rmtree(foreign)
