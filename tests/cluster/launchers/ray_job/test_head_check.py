"""What a head node lacks is told before a job is sent there."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.launchers.ray_job.head_check import PYTHONS, check_head
from cluster.launchers.ray_job.record import JobRequest, Needs
from cluster.planning.node_probe import version_of
from cluster.planning.versions import WATCHED
from cluster.ray.open_doors import HeadLook

HEAD = "http://head:8265"
REQUEST = JobRequest(
    name="tiny.yaml",
    recipe="name: tiny\n",
    overrides=(),
    run="/shared/runs/tiny",
    folder="/projects/mine",
    dataset="/data",
    needs=Needs(ranks=1, bundle={"CPU": 1}, cpus_of_workers=0),
    retry_exit_codes=(75,),
    retries=3,
    digest="00",
)
SEEN = HeadLook(
    doors=(),
    python="3.11.9",
    versions={name: version_of(name) for name in WATCHED},
    digest="00",
    folders={"/shared/runs": True, "/projects/mine": False},
)


def told(seen: HeadLook) -> list[str]:
    notices: list[str] = []
    check_head(seen, REQUEST, HEAD, notices.append)
    return notices


def test_a_head_that_has_all_is_told_nothing_about() -> None:
    assert told(SEEN) == []


def test_nothing_is_judged_where_nothing_could_be_found_out() -> None:
    assert told(HeadLook(("open",))) == []


def test_missing_packages_are_named() -> None:
    lacks = replace(SEEN, versions={**SEEN.versions, "torch": None, "deepspeed": None})
    with pytest.raises(ClusterError, match=f"{HEAD} has no torch and no deepspeed"):
        told(lacks)


def test_another_version_is_told_with_both() -> None:
    (notice,) = told(replace(SEEN, versions={**SEEN.versions, "torch": "2.11.0+cu130"}))
    assert f"torch 2.11.0+cu130, this machine {version_of('torch')}" in notice


@pytest.mark.parametrize("python", ["3.10.14", "3.14.0"])
def test_a_python_that_transloom_does_not_run_with_is_refused(python: str) -> None:
    with pytest.raises(ClusterError, match=f"Python {python}, and transloom needs 3.11 to 3.13"):
        told(replace(SEEN, python=python))


def test_these_pythons_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    (first, last) = PYTHONS
    assert project["requires-python"] == f">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"


@pytest.mark.parametrize("folder", ["/shared/runs/tiny", "/shared/runs"])
def test_a_folder_that_cannot_be_written_is_refused_with_its_reason(folder: str) -> None:
    unwritable = {folder: f"{folder} lies on a file system that is mounted read-only"}
    with pytest.raises(ClusterError, match=r"/shared/runs/tiny: .*read-only.*--run PATH"):
        told(replace(SEEN, unwritable=unwritable))
    told(replace(SEEN, unwritable={"/projects/mine": "it need not be"}))


def test_a_folder_that_is_not_there_is_refused_with_both_places() -> None:
    nowhere = dict.fromkeys(SEEN.folders, False)
    with pytest.raises(ClusterError, match="neither /shared/runs nor /projects/mine"):
        told(replace(SEEN, folders=nowhere))
