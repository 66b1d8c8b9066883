"""First stage of a job on the head node: find the run's folder and unpack the uploaded files."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.launchers.ray_job.job_record import LIMITS, JobFolder, JobRequest
from cluster.launchers.ray_job.job_share import SharesView
from cluster.package_files import digest_of
from cluster.packages import INSTALLATION
from cluster.ray.environment_file import read_environment, require
from cluster.ray.folder_access import write_problem
from data_pipeline.storage.regular_files import read_regular, write_atomically
from foundation.file_model import FileModel, error_summary

# Directory of the extensions among the uploaded files. Its hyphen keeps Python from importing it.
EXTENSIONS = "sent-extensions"


class JobPayload(FileModel):
    """The data that is sent to the head: the job's id and its request."""

    id: str
    request: JobRequest


@dataclass(frozen=True)
class UnpackedJob:
    """A job that is ready to begin.

    Attributes:
        words: the arguments of `transloom`, such as `train RECIPE …`, for each attempt. An attempt
            is one run of the training command; the job makes several if it restarts.
        view: function that creates the `SharesView`, through which the runner sees the jobs and the
            nodes of the cluster.
    """

    job_id: str
    request: JobRequest
    words: list[str]
    view: Callable[[], SharesView]


def unpack_job(payload: Path) -> UnpackedJob:
    """Read the payload, and create the job's folder inside the folder of its run.

    Raises:
        ClusterError: this node lacks something that the job needs.
        OSError: the run's folder cannot be written.
    """
    try:
        sent = JobPayload.from_json(read_regular(payload, LIMITS.bytes), LIMITS)
    except ValueError as error:
        raise ClusterError(
            f"The submitted file {payload} is no valid job: {error_summary(error)}. Submit the job "
            "with the version of transloom that this node has"
        ) from error
    request, job_id = sent.request, sent.id
    _check_code(request)
    file = Path(request.environment_file) if request.environment_file else None
    read_environment()
    require(request.environment, os.environ, file)
    job = JobFolder.of(_run_folder(request), job_id)
    job.path.mkdir(parents=True, exist_ok=True)
    recipe = job.path / request.name
    write_atomically(recipe, request.recipe)
    for name in request.extensions:
        there = job.path / "extensions" / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(payload.parent / EXTENSIONS / name, there)
    with suppress(OSError):
        _link_record_to_logs(job, job_id)
    return UnpackedJob(job_id, request, train_argv(request, recipe, job), _view)


def train_argv(request: JobRequest, recipe: Path, job: JobFolder) -> list[str]:
    """Return the arguments of `transloom` with which each attempt trains the run."""
    extensions = [f"extension_folder={job.path / 'extensions'}"] if request.extensions else []
    return [
        "train",
        str(recipe),
        *request.overrides,
        f"data.dataset={request.dataset}",
        *extensions,
        "--address",
        "auto",
        "--run",
        request.run,
        *(["--strict"] if request.strict else []),
    ]


def _check_code(request: JobRequest) -> None:
    found = digest_of(INSTALLATION)
    if found != request.digest:
        raise ClusterError(
            f"This node imports transloom from {INSTALLATION}, whose digest is {found[:16]}…, but "
            f"the job requires digest {request.digest[:16]}…. Remove the other transloom from the "
            "PYTHONPATH of `ray start`, or install the submitted version on this node"
        )


def _run_folder(request: JobRequest) -> Path:
    """Return the run's folder.

    Raises:
        ClusterError: none of the required folders exists, or this node cannot write the run's
            folder.
    """
    run, node = request.run_folder.path, f"Node {os.uname().nodename}"
    if request.required_folders and not any(
        Path(place).is_dir() for place in request.required_folders
    ):
        raise ClusterError(request.missing_folders_text(node))
    if problem := write_problem(run):
        raise ClusterError(
            f"{node} cannot write the run's folder {run}: {problem}. Name another folder with "
            "--run PATH, on storage that all nodes can write to"
        )
    return run


def _view() -> SharesView:
    from cluster.launchers.ray_job.head_cluster_view import HeadClusterView  # imports Ray

    return HeadClusterView(os.environ["RAY_ADDRESS"])


def _link_record_to_logs(job: JobFolder, job_id: str) -> None:
    """Link the record into Ray's log directory, so that clients can read it through the dashboard.

    A link suffices: Ray 2.60.0 follows links in its log directory (log_agent.py).
    """
    printed = Path("/proc/self/fd/1").readlink()
    if printed.name != f"job-driver-{job_id}.log":
        return
    (printed.parent / record_link(job_id)).symlink_to(job.record_file)


def record_link(job_id: str) -> str:
    return f"transloom-job-{job_id}.json"
