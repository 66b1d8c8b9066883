"""A run as a Ray job on a real head: submitted, followed, read, refused without the token."""

import json

import pytest
from support.command import transloom


@pytest.fixture
def decoys(tmp_path):
    """A folder with packages of our names that must never be imported."""
    folder = tmp_path / "project"
    for name in ("model", "trainer", "data_pipeline"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise ImportError('a decoy was imported')")
    return folder


def test_submit_follow_and_read_the_result(runs, undisturbed, decoys, ray_head):
    """Submitted from a folder with decoys: driver, ranks and workers import ours all the same."""
    run = runs.folder / "job"
    submitted = transloom(
        "submit",
        runs.recipe,
        "trainer.max_steps=12",
        "cluster.ranks=2",
        "--run",
        run,
        "--address",
        ray_head.dashboard,
        "--json",
        cwd=decoys,
    )
    assert submitted.returncode == 0, submitted.stderr
    answer = json.loads(submitted.stdout)
    assert answer["run"] == str(run)

    address = ["--address", ray_head.dashboard]
    log = transloom("jobs", "logs", answer["job"], "--follow", *address, cwd=decoys)
    assert "step 12/12" in log.stdout, log.stdout + log.stderr
    assert "Finished at step 12" in log.stdout
    status = transloom("jobs", "status", answer["job"], "--json", *address, cwd=decoys)
    assert json.loads(status.stdout)["status"] == "SUCCEEDED"
    listed = transloom("jobs", "list", "--json", *address, cwd=decoys)
    assert answer["job"] in [job["id"] for job in json.loads(listed.stdout)]

    assert runs.curve("job") == undisturbed.curve("undisturbed")[:12]
    assert runs.digests("job") == undisturbed.digests("undisturbed")[:12]


def test_a_client_without_the_token_is_refused(decoys, ray_head, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    for token in ("", "0" * 64):
        result = transloom(
            "jobs",
            "list",
            "--address",
            ray_head.dashboard,
            cwd=decoys,
            HOME=str(home),
            RAY_AUTH_TOKEN=token,
        )
        assert result.returncode == 1
        assert "token" in result.stderr
        assert "Traceback" not in result.stderr


def test_train_from_a_folder_with_packages_of_the_same_names(runs, decoys):
    result = transloom(
        "train",
        runs.recipe,
        "trainer.max_steps=3",
        "--run",
        runs.folder / "decoyed",
        "--address",
        runs.address,
        "--json",
        cwd=decoys,
        PYTHONPATH=str(decoys),
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["outcome"] == "finished"
    assert answer["step"] == 3
