"""Find the open endpoints of a cluster as plain `ray start` makes it: no token, an open folder."""

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from click.testing import Result
from support.cluster.ray_head import RayHead
from support.recipes import tiny_values, write_yaml

from cluster.errors import ClusterError
from cluster.ray.exposure import ClusterExposure
from cluster.ray.jobs import list_jobs, stop_job
from cluster.ray.session import ray_session

pytestmark = pytest.mark.long

TOKEN = r"answers without a token.*RAY_AUTH_MODE=token"
FOLDER = (
    r"other users may (enter|replace).*before `ray start`, set RAY_TMPDIR to a folder of mode 0700"
)


@pytest.fixture(scope="module")
def open_head() -> Iterator[RayHead]:
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        Path(folder).chmod(0o755)
        head = RayHead(Path(folder), cpus=1, environment={"RAY_AUTH_MODE": "disabled"})
        try:
            yield head
        finally:
            head.stop()


@pytest.fixture
def recipe(tmp_path: Path, phrasebook: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a recipe in a separate folder, for a user who has a token."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.chdir(tmp_path)
    return write_yaml(tmp_path / "tiny.yaml", tiny_values(phrasebook))


def test_joining_an_open_cluster_reports_this_once(open_head: RayHead, recipe: Path) -> None:
    told: list[str] = []
    with ray_session(open_head.address, report_open_endpoints=told.append):
        assert ray.is_initialized()
    (paragraph,) = told
    assert open_head.address.split(":")[1] in paragraph
    assert re.search(f"{TOKEN}.*{FOLDER}", paragraph)


def test_strict_training_in_an_open_cluster_is_refused(
    open_head: RayHead, recipe: Path, transloom: Callable[..., Result], tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match=f"{TOKEN}.*{FOLDER}.*refused because of --strict"):
        transloom("train", recipe, "--address", open_head.address, "--strict", "--run", "run")
    assert not ray.is_initialized()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_submission_to_an_open_cluster_warns_and_is_refused_with_strict(
    open_head: RayHead, recipe: Path, transloom: Callable[..., Result]
) -> None:
    address = open_head.dashboard
    with pytest.raises(ClusterError, match=f"{TOKEN}.*{FOLDER}.*refused because of --strict"):
        transloom("submit", recipe, "--address", address, "--strict")
    assert list_jobs(address) == []  # not even the job that probes the head node
    submitted = transloom("submit", recipe, "--address", address, "--json")
    job = json.loads(submitted.stdout)["job"]
    stop_job(address, job)
    assert re.match(f"warning: .*{TOKEN}.*{FOLDER}", submitted.stderr)
    assert [known.id for known in list_jobs(address)] == [job]


def test_a_closed_cluster_is_not_reported(ray_head: Any) -> None:
    told: list[str] = []
    with ray_session(ray_head.address, report_open_endpoints=told.append):
        pass
    assert told == []
    assert ClusterExposure(ray_head.dashboard).wait().endpoints == ()
