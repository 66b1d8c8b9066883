"""Submission of a run as a job, from any machine that reaches the cluster's dashboard.

check of the head ──▶ open endpoints, installed packages, missing files
                  ──▶ `JobRequest` + missing files ──▶ a Ray job that runs `runner.py`
"""

import json
import math
import re
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cluster.errors import ClusterError
from cluster.launchers.ray_job.entrance import job_code
from cluster.launchers.ray_job.job_package import extension_files, sent_files
from cluster.launchers.ray_job.job_record import RUNNER_KEY, JobRequest
from cluster.launchers.ray_job.job_unpacking import JobPayload
from cluster.launchers.ray_job.submit_checks import check_folder, check_head, check_jobs
from cluster.package_files import digest_of
from cluster.packages import INSTALLATION
from cluster.planning.quick_checks import quick_check
from cluster.ray import jobs, open_endpoints
from cluster.ray.environment_file import file_reference
from cluster.ray.exposure import ClusterExposure
from cluster.ray.job_command import HEAD_PYTHON, Attachment
from cluster.ray.jobs import STOP_WAIT_VARIABLE
from cluster.ray.shares import CLAIM_KEY, NEEDS_KEY, RUN_KEY, Needs
from cluster.recipe import (
    Recipe,
    find_recipe,
    load_recipe,
    load_untrusted_recipe,
    run_name,
    with_absolute_paths,
)
from cluster.supervision.invocation import claim_of, current_invocation, current_user
from foundation.wording import byte_count, counted, join_items
from run_store import RUNS
from run_store.folder import RunFolder
from run_store.remote.local_copy import stored_run
from run_store.start import DEFAULT_PRIORITY

# After cluster.grace_seconds the driver kills the ranks and exits, which takes a moment.
STOP_MARGIN_SECONDS = 30
PAYLOAD_FILE = "job.json"
NO_FOLDER = "extension_folder=null"  # because nodes use uploaded or installed extensions
# Names of W&B's environment variables for the user's identity and the server.
WANDB_KEY = "WANDB_API_KEY"
WANDB_VARIABLES = (
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_MODE",
)


@dataclass(frozen=True)
class SubmitOptions:
    """Options of `transloom submit`.

    Attributes:
        run: the run's folder; None for a folder in runs/, named after the recipe and its overrides.
        environment_file: path, on the nodes, of a file with environment variables.
        environment: names of the environment variables that the job needs.
        wait: whether to wait for capacity.
        strict: whether to refuse a cluster that is open to other users.
        owner: the person whose job it is; None for this user.
        priority: see `Claim`.
    """

    recipe: str
    overrides: Sequence[str] = ()
    run: Path | None = None
    environment_file: Path | None = None
    environment: Sequence[str] = ()
    wait: bool = True
    strict: bool = False
    owner: str | None = None
    priority: int = DEFAULT_PRIORITY


@dataclass(frozen=True)
class SubmittedJob:
    """A job that the cluster has accepted."""

    id: str
    run: str
    sent_bytes: int
    with_code: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.id,
            "run": self.run,
            "sent_bytes": self.sent_bytes,
            "sent_code": self.with_code,
        }


class SubmissionListener(Protocol):
    """Receiver of the warnings and the progress of a submission."""

    def warn(self, text: str) -> None:
        """Show a warning, such as an open endpoint of the cluster or scarce memory."""

    def progress(self, text: str) -> None:
        """Show the stage of the submission that begins now, which may take seconds."""


def submit(
    wanted: SubmitOptions,
    cluster_exposure: ClusterExposure,
    listener: SubmissionListener,
    entry_point: str,
) -> SubmittedJob:
    """Submit the run of a recipe; see `transloom submit --help`.

    Args:
        cluster_exposure: check of the target cluster, started with the job's required folders.
        entry_point: the module whose `main` the job calls, see `job_code`.

    Raises:
        ClusterError, DataError, ModelError, RunError: the recipe is invalid, the dataset or the
            run folder is unusable as far as visible from here, or the cluster refuses the job.
    """
    recipe, request = build_request(wanted)
    checked = quick_check(recipe, request.run_folder, trains_here=False)
    checked.raise_refusal()
    for scarce in checked.notices:
        listener.warn(scarce)
    # `resubmit` omits this check: the driver of a job whose head is lost may take a moment to end.
    if request.run_folder.url is None:  # only the nodes may have an object store's credentials
        check_folder(Path(request.run))
    return send(recipe, request, cluster_exposure, listener, entry_point)


def build_request(wanted: SubmitOptions) -> tuple[Recipe, JobRequest]:
    """Build the recipe and the request for its job (no network access)."""
    path = find_recipe(wanted.recipe)
    overrides = list(wanted.overrides)
    recipe = with_absolute_paths(load_recipe(path, overrides))
    run = RunFolder.of(wanted.run or RUNS / run_name(path, overrides))
    if wanted.environment_file and not wanted.environment_file.is_absolute():
        raise ClusterError(
            f"--env-file {wanted.environment_file} is a relative path, but the nodes read the "
            "file. Give the absolute path of the file on the nodes"
        )
    config = recipe.cluster
    request = JobRequest(
        name=path.name,
        recipe=path.read_text(encoding="utf-8"),
        overrides=tuple(overrides),
        run=run.url or str(run.path.absolute()),
        folder=str(Path.cwd()),
        dataset=recipe.data.dataset,
        needs=Needs.of(config),
        claim=claim_of(recipe, wanted.owner or current_user(), wanted.priority),
        rebalance_seconds=config.rebalance_seconds,
        wait=wanted.wait,
        strict=wanted.strict,
        retry_exit_codes=config.retry_exit_codes,
        retries=config.retries,
        environment_file=str(wanted.environment_file) if wanted.environment_file else None,
        environment=tuple(wanted.environment),
        extensions=tuple(extension_files(recipe)),
        invocation=current_invocation(),
        digest=digest_of(INSTALLATION),
    )
    return recipe, request


def send(
    recipe: Recipe,
    request: JobRequest,
    cluster_exposure: ClusterExposure,
    listener: SubmissionListener,
    entry_point: str,
) -> SubmittedJob:
    """Send a request for a job to a cluster.

    Args:
        cluster_exposure: check of this cluster.
        entry_point: see `submit`.

    Raises:
        ClusterError: the cluster cannot be reached or refuses the token; the cluster is open to
            other users and the request is strict; its head node lacks what the run needs; or
            another job uses the run.
    """
    # Wait for the check before any file is sent.
    address, seen = cluster_exposure.dashboard, cluster_exposure.wait()
    if seen.endpoints:
        open_endpoints.report_exposure(
            open_endpoints.warning(address, seen.endpoints),
            strict=request.strict,
            notice=listener.warn,
        )
    check_head(seen, request, address, listener.warn)
    check_jobs(address, request.run)
    # The check covers only the head: other nodes may have a different transloom.
    with_code = seen.digest != request.digest or jobs.count_nodes(address) != 1
    files = sent_files(recipe, with_code=with_code)
    job_id = new_job_id(recipe.name)
    payload = JobPayload(id=job_id, request=request).model_dump_json().encode()
    sent = len(payload) + sum(path.stat().st_size for path in files.values())
    code = f" and {counted(len(files), 'file')} of code ({byte_count(sent)})" if files else ""
    listener.progress(f"sending the recipe{code}, submitting the job")
    jobs.submit(
        [HEAD_PYTHON, "-P", "-c", job_code(entry_point), Attachment(PAYLOAD_FILE, payload)],
        address=address,
        folder=Path("/"),
        shipped=files,
        environment=job_environment(recipe, request, listener.warn),
        metadata={
            "recipe": recipe.name,
            RUN_KEY: request.run,
            CLAIM_KEY: request.claim.model_dump_json(),
            NEEDS_KEY: request.needs.model_dump_json(),
            RUNNER_KEY: "1",
        },
        job_id=job_id,
    )
    return SubmittedJob(job_id, request.run, sent, with_code)


def job_environment(
    recipe: Recipe, request: JobRequest, notice: Callable[[str], None]
) -> dict[str, str]:
    """Return additional environment variables of a job's processes, without secrets.

    Other users of the cluster can read these variables.

    Args:
        notice: called with a message if W&B's key or a target of notifications seems to be
            missing.
    """
    seconds = math.ceil(recipe.cluster.grace_seconds) + STOP_MARGIN_SECONDS
    environment = {STOP_WAIT_VARIABLE: str(seconds)}
    mode, notified = recipe.tracking.wandb, recipe.tracking.notify.variables
    if request.environment_file:
        welcome = () if mode == "disabled" else (WANDB_KEY, *WANDB_VARIABLES)
        environment |= file_reference(
            Path(request.environment_file), request.environment, (*welcome, *notified)
        )
        return environment
    if missing := [name for name in notified if name not in request.environment]:
        them = "it" if len(missing) == 1 else "them"
        notice(
            f"tracking.notify reads {join_items(missing)}, and neither --env-file nor --env names "
            f"{them}. Set {them} in the environment of `ray start` on the head node, or in a file "
            "on the nodes that --env-file names. Otherwise the run sends no notifications there"
        )
    if mode == "online" and WANDB_KEY not in request.environment:
        notice(
            f"tracking.wandb is online, and neither --env-file nor --env {WANDB_KEY} is given. On "
            "the node of rank 0, set this key in the environment of `ray start`, or run `wandb "
            "login`"
        )
    return environment


def resubmit(
    request: JobRequest,
    address: str,
    listener: SubmissionListener,
    folder: Path | None,
    entry_point: str,
) -> SubmittedJob:
    """Submit a job's request again, with the unchanged recipe and this machine's transloom.

    Args:
        folder: folder of the former job, which may hold the extensions that were sent with it.
        entry_point: see `submit`.

    Raises:
        ClusterError: see `send`.
        RunMismatchError: see `rebuild_request`.
    """
    recipe, again = rebuild_request(request, folder)
    return send(
        recipe, again, ClusterExposure(address, again.required_folders), listener, entry_point
    )


def rebuild_request(request: JobRequest, folder: Path | None) -> tuple[Recipe, JobRequest]:
    """Build a request that repeats a former job (no network access).

    A job's record is untrusted, like its run. Extensions therefore come from the user's
    environment, on this machine and on the nodes.

    Args:
        request: the request of the former job.
        folder: the folder of the former job, which may hold the extensions that were sent with it.

    Raises:
        RunMismatchError: an extension is missing here, or its code differs from the run's.
    """
    theirs = request.overrides
    if folder and request.extensions:
        theirs = (*theirs, f"extension_folder={json.dumps(str(folder / 'extensions'))}")
    run = stored_run(request.run_folder)
    identity = run.card().identity if run.has_begun() else None
    with tempfile.TemporaryDirectory(prefix="transloom-job-") as here:
        path = Path(here) / request.name
        path.write_text(request.recipe, encoding="utf-8")
        recipe = load_untrusted_recipe(path, identity, theirs=theirs)
    changes = {
        "overrides": (*(text for text in request.overrides if text != NO_FOLDER), NO_FOLDER),
        "extensions": tuple(extension_files(recipe)),
        "digest": digest_of(INSTALLATION),
    }
    return recipe, request.model_copy(update=changes)


def new_job_id(name: str) -> str:
    """Return a random job id that begins with the recipe's name."""
    words = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40]
    return f"{words or 'job'}-{secrets.token_hex(4)}"
