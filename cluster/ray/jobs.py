"""Ray jobs: commands that run on a cluster, controlled from any machine.

These are thin functions over Ray's Jobs API, which uses HTTP and the head's dashboard. The address
is the dashboard's, such as `http://127.0.0.1:8265`; the user's Ray token is sent with each request.

A job's command runs in a shell on the head node. Its files (`Attachment`s, and packages to import)
are uploaded to a separate directory, which Ray deletes some time after the job. Therefore the
command runs in another directory.
"""

import asyncio
import logging
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient, JobType

from cluster.errors import ClusterError
from cluster.ray import private
from cluster.ray.authentication import REMEDY, enable_authentication
from cluster.ray.job_command import Attachment, Word, readable, shell_command
from cluster.ray.private import NOISY_LOGGERS
from foundation.location import credential_in, without_credentials
from foundation.proxies import bypass_proxies, proxy_hint
from run_store.start import StopOrder

POLL_SECONDS = 0.1
COMMAND_KEY = "command"  # metadata key of the submitted command, without the shell around it
# Key in the metadata of a job that only checks the head node; `list_jobs` omits such a job. (It is
# not deleted: after a deletion, Ray 2.60.0 may record the job's end again, which restores it.)
PROBE_KEY = "looks"
STOPS_KEY, BY_KEY = "stops", "by"  # metadata of an order to stop a job: the job's id, the user

# Variable with the seconds from SIGTERM to SIGKILL when a job is stopped. Ray 2.60.0 reads it in
# the process that supervises the job (job_supervisor.py), which has the job's environment.
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
REQUEST_SECONDS = 30.0
# Ray's agent on the head node starts jobs, and may be ready later than the dashboard. Ray 2.60.0
# (job_head.py) waits 10 s for the agent, and then answers with the text below.
AGENT_SECONDS = 120.0
_NO_AGENT = "No available agent to submit job"
MAX_BEFORE_COMMAND = 4_000  # maximum characters before the command in a job's log

_COMPARE = (
    "Compare this address with the dashboard's address that `ray start --head` printed. The "
    "dashboard's port is 8265 by default; 6379 is the port for drivers. From another machine, "
    "forward the port first, for example with `ssh -L 8265:127.0.0.1:8265 HEAD`"
)


@dataclass(frozen=True)
class Job:
    """A job as the cluster knows it. Times are in seconds since the epoch."""

    id: str
    status: str  # PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED
    command: str
    message: str
    started: float | None
    ended: float | None
    exit_code: int | None
    metadata: Mapping[str, str]
    node: str | None = None  # id of the node on which its command runs

    @property
    def finished(self) -> bool:
        return bool(JobStatus(self.status).is_terminal())


def submit(
    command: Sequence[Word],
    *,
    address: str,
    folder: Path,
    shipped: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    job_id: str | None = None,
) -> str:
    """Start a command on a cluster, and return the job's id without waiting for the command.

    The head node searches its PATH for the command's program. Before that, it searches the
    directory of this process's Python, if that directory exists on the head node.

    Args:
        folder: working directory of the command, as the head node sees it.
        shipped: files to upload, by their names relative to a new directory. That directory comes
            first on Python's path in the command and in all workers that it starts, on all nodes.
        environment: variables to add to the environment of the command and of the workers that it
            starts. Every user of the cluster can read them.
        job_id: the job's id; by default Ray chooses one.

    Raises:
        ClusterError: the cluster cannot be reached, refuses the token, or already has a job with
            this id.
    """
    attachments = [part for part in command if isinstance(part, Attachment)]
    programs = Path(sys.executable).parent
    with (
        jobs_api_errors(address),
        tempfile.TemporaryDirectory(prefix="transloom-job-") as working_dir,
    ):
        for attachment in attachments:
            (Path(working_dir) / attachment.name).write_bytes(attachment.content)
        for name, file in (shipped or {}).items():
            (Path(working_dir) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, Path(working_dir) / name)
        return _submit_when_ready(
            _client(address),
            entrypoint=shell_command(command, folder, programs),
            runtime_env={
                "env_vars": dict(environment or {}),
                **({"working_dir": working_dir} if attachments or shipped else {}),
            },
            metadata={**(metadata or {}), COMMAND_KEY: readable(command)},
            submission_id=job_id,
            entrypoint_num_cpus=0,  # the command only supervises; ranks and workers reserve CPUs
        )


def _submit_when_ready(client: JobSubmissionClient, **options: Any) -> str:
    """Submit a job; on a head that has just started, wait until it can start jobs."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            submitted: str = client.submit_job(**options)
        except RuntimeError as error:
            if _NO_AGENT not in str(error):
                raise
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The head node of the Ray cluster has started no job for {AGENT_SECONDS:.0f} "
                    "s, because Ray's agent on it does not answer. Another program may have its "
                    "port: stop Ray there, and start it with --dashboard-agent-listen-port=0. The "
                    "reason is in dashboard_agent.log, in session_latest/logs of Ray's temporary "
                    "folder"
                ) from error
        else:
            return submitted


def list_jobs(address: str) -> list[Job]:
    """Return all jobs submitted to a cluster since it started, oldest first, without probe jobs."""
    with jobs_api_errors(address):
        jobs = [
            _job(details)
            for details in _client(address).list_jobs()
            if details.type == JobType.SUBMISSION and PROBE_KEY not in (details.metadata or {})
        ]
    return sorted(jobs, key=lambda job: job.started or 0.0)


def job_status(address: str, job_id: str) -> Job:
    """Return the current state of a job.

    Raises:
        ClusterError: the cluster cannot be reached, refuses the token, or knows no such job.
    """
    with jobs_api_errors(address, job_id):
        return _job(_client(address).get_job_info(job_id))


def wait_for_job(address: str, job_id: str) -> Job:
    """Wait until a job has finished."""
    while not (job := job_status(address, job_id)).finished:
        time.sleep(POLL_SECONDS)
    return job


def job_logs(address: str, job_id: str, *, follow: bool = False) -> Iterator[str]:
    """Yield the output of a job in chunks; with `follow`, until the job has finished.

    Ray's line at the top, which repeats the whole shell command, is omitted.
    """
    with jobs_api_errors(address, job_id):
        client = _client(address)
        details = client.get_job_info(job_id)  # fails with a clear error if the job does not exist
        pieces = _follow_logs(client, job_id) if follow else iter([client.get_job_logs(job_id)])
        yield from without_line(pieces, _first_line(details))


def _first_line(details: JobDetails) -> str:
    """Return the first line that Ray writes into a job's log (2.60.0, job_supervisor.py)."""
    return f"Running entrypoint for job {details.submission_id}: {details.entrypoint}\n"


def _follow_logs(client: JobSubmissionClient, job_id: str) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    pieces = client.tail_job_logs(job_id)
    try:
        while (piece := loop.run_until_complete(anext(pieces, None))) is not None:
            yield piece
    finally:
        loop.run_until_complete(pieces.aclose())
        loop.close()


def without_line(pieces: Iterator[str], line: str) -> Iterator[str]:
    """Yield the chunks of a text, without a line that may be near the top.

    Chunks are held back while the line may still follow.
    """
    held = ""
    for piece in pieces:
        held += piece
        if line in held or len(held) > len(line) + MAX_BEFORE_COMMAND:
            yield held.replace(line, "", 1)
            yield from pieces
            return
    yield held.replace(line, "", 1)


def stop_job(address: str, job_id: str, by: str | None = None) -> bool:
    """Ask a job to stop; return False if it had already finished.

    The job's processes receive SIGTERM and, three seconds later, SIGKILL. `STOP_WAIT_VARIABLE` in
    the job's environment changes the three seconds.

    Args:
        by: the person who stops the job. A signal carries no text, so the name is stored in the
            metadata of a small job, where `newest_stop_order` finds it.
    """
    if by:
        order = {PROBE_KEY: "the order to stop a job", STOPS_KEY: job_id, BY_KEY: by}
        submit(["true"], address=address, folder=Path("/"), metadata=order)
    with jobs_api_errors(address, job_id):
        return bool(_client(address).stop_job(job_id))


def newest_stop_order(address: str, job_id: str) -> StopOrder | None:
    """Return who has stopped a job last and when; None if that is unknown."""
    with jobs_api_errors(address):
        orders = [
            details
            for details in _client(address).list_jobs()
            if (details.metadata or {}).get(STOPS_KEY) == job_id
        ]
    newest = max(orders, key=lambda details: details.start_time or 0, default=None)
    with suppress(ValueError):  # any user of the cluster can write metadata
        if newest and newest.metadata:
            by = newest.metadata.get(BY_KEY, "")
            return StopOrder(by=by, at=(newest.start_time or 0) / 1000)
    return None


def file_next_to_logs(address: str, node: str, name: str) -> bytes | None:
    """Return the content of a file in a node's Ray log directory, or None if it does not exist."""
    with jobs_api_errors(address):
        answer = _client(address)._do_request(  # Ray 2.60.0; its public `get_log` takes no URL
            "GET",
            "/api/v0/logs/file",
            params={"node_id": node, "filename": name, "lines": -1},
            timeout=REQUEST_SECONDS,
        )
        return bytes(answer.content) if answer.status_code == 200 else None


def count_nodes(address: str) -> int:
    """Return the number of live nodes of a cluster."""
    with jobs_api_errors(address):
        answer = _client(address)._do_request(
            "GET", "/api/v0/nodes", params={"limit": 10_000}, timeout=REQUEST_SECONDS
        )
        nodes = answer.json()["data"]["result"]["result"] if answer.status_code == 200 else []
    return sum(node["state"] == "ALIVE" for node in nodes)


def dashboard_of(head: str) -> str:
    """Return the address of a cluster's dashboard, for a caller on one of the cluster's nodes.

    Args:
        head: HOST:PORT of the cluster's head.
    """
    enable_authentication(create_token=False)
    with jobs_api_errors(head):
        return private.dashboard_of(head)


def check_address(address: str) -> None:
    """Check that an address has the form of a dashboard's address, before a request is sent to it.

    Raises:
        ClusterError: the address carries a credential, or is not an HTTP URL.
    """
    if found := credential_in(address):
        raise ClusterError(
            f"The address {without_credentials(address)} carries {found}. Remove it, because a "
            f"cluster authenticates users by Ray's token. To use the token, {REMEDY}"
        )
    if not address.startswith(("http://", "https://")):
        raise ClusterError(
            f"{address} is not the address of a Ray dashboard, to which jobs are submitted. Give "
            "an address such as http://127.0.0.1:8265, which `ray start --head` prints"
        )


class _Client(JobSubmissionClient):
    """Client of the Jobs API that uses the given address and sends the user's token.

    Ray's own client uses the address in RAY_API_SERVER_ADDRESS or RAY_ADDRESS, if one is set; and
    without an explicit `auth`, the package `requests` would send the password that ~/.netrc has for
    the dashboard's host instead of the token.
    """

    def __init__(self, address: str) -> None:
        # The rest of JobSubmissionClient's constructor, as in Ray 2.60.0.
        super(JobSubmissionClient, self).__init__(address)
        self._check_connection_and_version(min_version="2.0")
        # By default, when Ray follows a log, it passes aiohttp None for the verification of
        # certificates, which is deprecated.
        self._ssl_context = True

    # In Ray 2.60.0 all requests go through this method.
    def _do_request(self, *arguments: Any, **options: Any) -> Any:
        # Limit the first request, as the server may not be Ray, and one that runners send often.
        if arguments in (("GET", "/api/version"), ("GET", "/api/jobs/")):
            options.setdefault("timeout", REQUEST_SECONDS)
        return super()._do_request(*arguments, auth=lambda request: request, **options)


def _client(address: str) -> JobSubmissionClient:
    check_address(address)
    enable_authentication(create_token=False)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return _Client(address)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError):  # such as `requests.exceptions.InvalidURL`
            raise
        raise ClusterError(
            f"The server at {address} is not a Ray dashboard, because it does not report Ray's "
            f"version ({error}{proxy_hint(address)}). {_COMPARE}"
        ) from error


@contextmanager
def jobs_api_errors(address: str, job_id: str | None = None) -> Iterator[None]:
    """Convert errors of the Jobs API to a ClusterError: one paragraph with a remedy.

    Requests to an address of this machine bypass a proxy of the environment.
    """
    bypass_proxies(address)
    try:
        yield
    except AuthenticationError as error:
        raise ClusterError(
            f"The Ray cluster at {address} refuses this user's token{proxy_hint(address)}: {REMEDY}"
        ) from error
    # The exceptions of `requests` are OSErrors. A server that does not speak HTTP, such as Ray's at
    # port 6379, may cause an HTTPException.
    except (OSError, aiohttp.ClientError, HTTPException) as error:
        raise ClusterError(
            f"No Ray dashboard answers at {address} ({_reason(error)}{proxy_hint(address)}). "
            f"{_COMPARE}"
        ) from error
    except RuntimeError as error:
        if job_id is not None and "status code 404" in str(error):
            raise ClusterError(
                f"The Ray cluster at {address} knows no job {job_id}. To list its jobs, run "
                f"`transloom jobs list --address {address}`"
            ) from error
        reasons = re.findall(r"^\w*(?:Error|Exception): (.+)$", str(error), re.MULTILINE)
        reason = reasons[-1] if reasons else error
        raise ClusterError(
            f"The Ray cluster at {address} refused the request: {reason}{proxy_hint(address)}"
        ) from error


def _reason(error: Exception) -> str:
    """Return why a request failed, without the bytes of a server that does not speak HTTP."""
    # urllib raises the HTTPException directly, `requests` wraps it, and Ray hides both in another
    # exception.
    if isinstance(error, HTTPException) or "BadStatusLine" in repr((error, error.__context__)):
        return "the server there does not speak HTTP"
    return str(error.reason if isinstance(error, URLError) else error)


def _job(details: JobDetails) -> Job:
    metadata = dict(details.metadata or {})
    return Job(
        id=details.submission_id,
        status=str(details.status),
        command=metadata.pop(COMMAND_KEY, details.entrypoint),
        message=(details.message or "").replace(_first_line(details), ""),  # has the end of the log
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        exit_code=details.driver_exit_code,
        metadata=metadata,
        node=details.driver_node_id,
    )
