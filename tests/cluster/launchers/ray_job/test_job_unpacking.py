"""Unpack a job on its node, or refuse it with the reason."""

from pathlib import Path
from typing import Any

import pytest

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import JobRequest
from cluster.launchers.ray_job.job_unpacking import EXTENSIONS, JobPayload, unpack_job
from cluster.package_files import digest_of
from cluster.packages import INSTALLATION
from cluster.ray.shares import Needs


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """Return the folder of the sent files, with an extension."""
    module = tmp_path / "sent" / EXTENSIONS / "lion" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1\n")
    return tmp_path / "sent"


def envelope(sent: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {
        "name": "tiny.yaml",
        "recipe": "name: tiny\n",
        "overrides": ("seed=2",),
        "run": str(sent.parent / "run"),
        "folder": "/nowhere",
        "dataset": "/data",
        "needs": Needs(ranks=1, bundle={"CPU": 1}, cpus_of_workers=0),
        "retry_exit_codes": (75,),
        "retries": 3,
        "extensions": ("lion/__init__.py",),
        "digest": digest_of(INSTALLATION),
    }
    path = sent / "job.json"
    path.write_text(JobPayload(id="mine", request=JobRequest(**given | changes)).model_dump_json())
    return path


def test_recipe_and_extensions_are_unpacked_into_the_jobs_folder(sent: Path) -> None:
    arrived = unpack_job(envelope(sent))
    job = sent.parent / "run" / "jobs" / "mine"
    assert (job / "tiny.yaml").read_text() == "name: tiny\n"
    assert (job / "extensions" / "lion" / "__init__.py").read_text() == "x = 1\n"
    assert arrived.words == [
        "train",
        str(job / "tiny.yaml"),
        "seed=2",
        "data.dataset=/data",
        f"extension_folder={job / 'extensions'}",
        "--address",
        "auto",
        "--run",
        str(sent.parent / "run"),
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"digest": "f" * 64}, f"imports transloom from {INSTALLATION}, .* digest f{{16}}"),
        ({"run": "/far/away/run"}, r"has neither /far/away nor /nowhere\. Use --run"),
        ({"environment": ("NOBODY_HAS_IT",)}, "NOBODY_HAS_IT: not in the environment of node"),
    ],
)
def test_a_node_names_what_it_lacks(changes: dict[str, Any], complaint: str, sent: Path) -> None:
    with pytest.raises(ClusterError, match=complaint):
        unpack_job(envelope(sent, **changes))
    assert not (sent.parent / "run").exists()


def test_a_run_folder_that_cannot_be_written_is_named_with_a_reason(sent: Path) -> None:
    (file := sent.parent / "file").touch()
    changes = {"run": str(file / "run"), "folder": str(sent.parent)}
    with pytest.raises(ClusterError, match=f"{file} is a file.*--run PATH"):
        unpack_job(envelope(sent, **changes))
