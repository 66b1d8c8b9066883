"""The record of a job: a JSON file in the run's folder, which outlives the head.

::

    RUN/jobs/ID/job.json    the record: request, state, attempts; its modification time is the
                            runner's last heartbeat
    RUN/jobs/ID/log.txt     the output of all attempts
    RUN/jobs/ID/share.json  the number of ranks that the job should have, for its driver
    RUN/jobs/ID/NAME.yaml   the recipe, as submitted
    RUN/jobs/ID/extensions/ the modules of the recipe's `extension_folder`, as submitted

Only the runner writes the record; it replaces the whole file each time.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cluster.errors import ClusterError
from cluster.ray.shares import Needs
from cluster.supervision.share_target import ShareTarget
from data_pipeline.storage.regular_files import read_regular, write_atomically
from foundation.file_model import Count, FileModel, JsonLimits, error_summary
from run_store.folder import RunFolder
from run_store.process_identity import host_identity, start_tick
from run_store.run_url import is_run_url
from run_store.start import Claim, Invocation

LIMITS = JsonLimits(bytes=8_000_000, values=200_000)
RENEW_SECONDS = 5.0
# After this long without a heartbeat, a job's processes are considered lost.
HEARTBEAT_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.25

RUNNER_KEY = "runner"  # metadata key of jobs that keep a record in the run's folder

JobState = Literal["WAITING", "STARTING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"]
FINAL: frozenset[str] = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
WAITING_STATES = frozenset({"PENDING", "WAITING"})  # states before the job begins to train
# State that is shown, but never written: the record shows an unfinished job, and the job's
# processes are lost.
LOST = "LOST"
Code = Annotated[int, Field(ge=0, le=255)]
# Name of a file in the job's folder: without a slash, it cannot leave that folder.
FileName = Annotated[str, Field(pattern=r"^[^/\x00]+$", max_length=255)]


class JobRequest(FileModel):
    """A request for a job, complete enough to submit the same job again.

    Attributes:
        name: name of the recipe's file.
        recipe: text of the recipe's file.
        overrides: overrides of the recipe.
        run: the run's folder, as the nodes see it, or its URL.
        folder: base of the recipe's relative paths, if it exists on the node.
        dataset: location of the dataset, as the nodes see it.
        claim: owner, priority and other properties that determine the job's share.
        rebalance_seconds: `cluster.rebalance_seconds`.
        wait: whether the job may wait for capacity, instead of failing.
        strict: whether to refuse a cluster that is open to other users.
        environment_file: path on the nodes; see `cluster.ray.environment_file`.
        environment: names of the variables that the job needs; their values are not sent.
        extensions: relative names of the files sent for the recipe's `extension_folder`.
        invocation: command that the user typed to submit the job, and its directory.
        digest: digest of the transloom sources that the job must run (`package_files.digest_of`).
    """

    name: FileName
    recipe: str
    overrides: tuple[str, ...]
    run: str
    folder: str
    dataset: str
    needs: Needs
    claim: Claim = Claim()
    rebalance_seconds: float = 300.0
    wait: bool = True
    strict: bool = False
    retry_exit_codes: tuple[Code, ...]
    retries: Count
    environment_file: str | None = None
    environment: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    invocation: Invocation = Invocation()
    digest: str

    @property
    def run_folder(self) -> RunFolder:
        """The run's folder on this node, also if the run is in an object store."""
        return RunFolder.of(self.run)

    @property
    def required_folders(self) -> list[str]:
        """Folders of which at least one must exist before the run's folder is created.

        A run in an object store needs none of them.
        """
        if is_run_url(self.run):
            return []
        return [self.run, str(Path(self.run).parent), self.folder]

    def missing_folders_text(self, node: str) -> str:
        """Return the message for a node that has none of the required folders."""
        return (
            f"{node} has neither {Path(self.run).parent} nor {self.folder}. Use --run to name a "
            "run folder on storage that all nodes see"
        )


class Attempt(FileModel):
    """One start of `transloom train`.

    Attributes:
        exit_code: as a shell reports it (137 after SIGKILL); None while the process runs.
        why: the signal that killed the process, if any, and the last line that it printed.
        first_line, last_line: the range of the attempt's lines in log.txt, counted from 1.
        first_byte: start of the attempt's output in log.txt, in bytes from 0.
        step: last recorded step when the process ended.
    """

    started: float
    ended: float | None = None
    exit_code: Code | None = None
    why: str = ""
    first_line: Count
    first_byte: Count
    last_line: Count | None = None
    step: Count | None = None

    @property
    def end_text(self) -> str:
        """The exit code and the step, for messages."""
        code = exit_code_text(self.exit_code)
        return code if self.step is None else f"{code} at step {self.step}"


class Runner(FileModel):
    """The process that supervises a job."""

    host: str
    process: Count
    started: Count | None
    boot: str | None

    @classmethod
    def of_this_process(cls) -> "Runner":
        process = os.getpid()
        return cls(
            host=socket.gethostname(),
            process=process,
            started=start_tick(process),
            boot=host_identity(),
        )

    def is_alive_here(self) -> bool | None:
        """Return whether the process is alive, or None if it is from another machine or boot."""
        if self.boot is None or self.boot != host_identity():
            return None
        return start_tick(self.process) == self.started


class JobRecord(FileModel):
    """Record of a job, written by its runner. Times are in seconds since the epoch.

    Attributes:
        waits_for: reason why the job is waiting, in words; None if it is not waiting.
        since: time at which the current state began.
        has_owned_run: whether an attempt has been the owner of the run, so that it trained the run.
        ranks: number of ranks for which the job holds resources; None if it is unknown.
        share: number of ranks that the job should have, with the reason; None before it begins.
    """

    format_version: Literal[1] = 1
    id: str
    request: JobRequest
    state: JobState
    waits_for: str | None = None
    since: float
    runner: Runner
    attempts: tuple[Attempt, ...] = ()
    has_owned_run: bool = False
    ranks: Count | None = None
    share: ShareTarget | None = None
    exit_code: Code | None = None
    message: str | None = None

    @property
    def restarts(self) -> int:
        return max(0, len(self.attempts) - 1)

    @property
    def begun(self) -> float:
        """Start time of the first attempt, or of the current state if there is no attempt yet."""
        return self.attempts[0].started if self.attempts else self.since


class JobFolder:
    """The folder of a job, inside the run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "job.json"
        self.log = path / "log.txt"

    @classmethod
    def of(cls, run: Path, job_id: str) -> "JobFolder":
        return cls(run / "jobs" / job_id)

    @classmethod
    def newest_of(cls, run: Path) -> "JobFolder":
        """Return the folder of the job that trains a run or, if none does, of the run's last job.

        A job that was refused because another job trained the run is ignored.

        Raises:
            ClusterError: the run has no record of a job.
        """
        folders = [cls(file.parent) for file in (run / "jobs").glob("*/job.json")]
        if not folders:
            raise ClusterError(
                f"{run} has no record of a job ({run / 'jobs'}/*/job.json). Name the folder of a "
                "run that was started by `transloom submit`"
            )
        jobs = [(folder, folder._readable()) for folder in folders]
        jobs.sort(key=lambda job: job[1].begun if job[1] else 0.0)
        newest, record = jobs[-1]
        owners = [(folder, own) for folder, own in jobs if own and own.has_owned_run]
        if not owners:
            return newest
        owner, owned = owners[-1]  # may be the newest job itself
        return owner if owner._has_refused(record, owned) else newest

    def _readable(self) -> JobRecord | None:
        """Return the record, or None if it is damaged."""
        with suppress(ClusterError):
            return self.read()
        return None

    def _has_refused(self, other: JobRecord | None, own: JobRecord) -> bool:
        """Return whether another job was or is refused because this job owned or owns the run.

        Args:
            other: the other job's record; None if it is damaged.
            own: this job's record; the job has owned the run.
        """
        if own.state not in FINAL:
            return not self.is_heartbeat_overdue(own)
        ended = own.attempts[-1].ended if own.attempts else None
        return other is not None and other.state in FINAL and other.begun <= (ended or 0.0)

    def is_heartbeat_overdue(self, record: JobRecord) -> bool:
        """Return whether a record's runner seems to be lost, without waiting for a heartbeat."""
        lives = record.runner.is_alive_here()
        if lives is not None:
            return not lives
        try:
            return time.time() - self.record_file.stat().st_mtime > HEARTBEAT_TIMEOUT_SECONDS
        except OSError:
            return True

    def read(self) -> JobRecord:
        """Read the record.

        Raises:
            ClusterError: the file is missing or damaged.
        """
        try:
            return parse_record(read_regular(self.record_file, LIMITS.bytes), str(self.record_file))
        except OSError as error:
            raise ClusterError(
                f"{self.record_file} cannot be read: {error.strerror}. Name the folder of a run "
                "that was submitted as a job, or the job's id with --address"
            ) from error

    def write(self, record: JobRecord) -> None:
        write_atomically(self.record_file, record.model_dump_json(indent=1) + "\n")

    def renew(self) -> None:
        """Update the heartbeat: the modification time of the record's file."""
        with suppress(OSError):
            os.utime(self.record_file)

    def is_lost(self, sleep: Callable[[float], None] = time.sleep) -> bool:
        """Return whether the record shows an unfinished job whose runner is lost.

        If this machine cannot check the runner's process, wait for a heartbeat. After
        `HEARTBEAT_TIMEOUT_SECONDS` without one, the runner is lost.
        """
        record = self.read()
        if record.state in FINAL:
            return False
        lives = record.runner.is_alive_here()
        if lives is not None:
            return not lives
        before, waited = self._last_heartbeat(), 0.0
        if abs(time.time() - before / 1e9) < RENEW_SECONDS:
            return False
        while waited < HEARTBEAT_TIMEOUT_SECONDS:
            sleep(POLL_SECONDS)
            waited += POLL_SECONDS
            if self._last_heartbeat() != before:
                return False
        return True

    def _last_heartbeat(self) -> int:
        with self.record_file.open("rb") as file:  # opening makes NFS fetch the attributes again
            return os.fstat(file.fileno()).st_mtime_ns


def exit_code_text(code: int | None) -> str:
    """Describe the exit code of a process or job; a job may have none."""
    return "no exit code" if code is None else f"exit code {code}"


def parse_record(data: bytes, name: str) -> JobRecord:
    """Parse the record of a job.

    Args:
        name: the name of the file in messages.

    Raises:
        ClusterError: the data is not a record.
    """
    try:
        return JobRecord.from_json(data, LIMITS)
    except ValueError as error:
        raise ClusterError(
            f"{name} is no record of a job: {error_summary(error)}. If another version of "
            "transloom wrote this file, read it with that version. The job's log is log.txt in the "
            "same folder"
        ) from error
