"""What is known of a job: a JSON file in the run's folder, which outlives the head.

::

    RUN/jobs/ID/job.json    the record: request, state, attempts; touched as the runner lives
    RUN/jobs/ID/log.txt     what all attempts have printed
    RUN/jobs/ID/NAME.yaml   the recipe, as it was sent
    RUN/jobs/ID/extensions/ the modules of the recipe's `extension_folder`, as they were sent

The runner alone writes the record, whole each time.
"""

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from cluster.errors import ClusterError
from data_pipeline.storage.durable import write_atomically
from data_pipeline.storage.regular_files import read_regular
from foundation.file_model import Count, FileModel, error_summary
from foundation.strict_json import JsonLimits, parse_object
from trainer.checkpoints.process_identity import start_tick
from trainer.runs.start import Invocation

LIMITS = JsonLimits(bytes=8_000_000, values=200_000)
RENEW_SECONDS = 5.0
# Without a sign of life for so long, a job's processes are taken for gone.
HEARTBEAT_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.25

JobState = Literal["WAITING", "STARTING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"]
FINAL: frozenset[str] = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
# Not written by anybody: the record says that the job is under way, and nobody is there.
LOST = "LOST"
Code = Annotated[int, Field(ge=0, le=255)]
# Of a file that is written in a folder of ours: it leads nowhere else.
FileName = Annotated[str, Field(pattern=r"^[^/\x00]+$", max_length=255)]


class Needs(FileModel):
    """The least that a run reserves: so many ranks, and the CPUs of its data workers.

    Attributes:
        bundle: all that Ray reserves for a rank, by Ray's names.
        node_labels: of the nodes on which ranks may be.
    """

    ranks: Annotated[int, Field(gt=0)]
    bundle: dict[str, Annotated[float, Field(gt=0)]]
    cpus_of_workers: Annotated[float, Field(ge=0)]
    node_labels: dict[str, str] = Field(default_factory=dict)

    def __str__(self) -> str:
        rank = " and ".join(f"{amount:g} {name}" for name, amount in self.bundle.items())
        labels = ", ".join(f"{key}={value}" for key, value in self.node_labels.items())
        workers = f", and {self.cpus_of_workers:g} CPU for data workers"
        return (
            f"{self.ranks} × ({rank}){f' on nodes with {labels}' if labels else ''}"
            f"{workers if self.cpus_of_workers else ''}"
        )


class JobRequest(FileModel):
    """What is asked for: all that it takes to submit the same again.

    Attributes:
        name: of the recipe's file.
        recipe: its text.
        overrides: after it, on the command line.
        run: the run's folder, as the nodes see it.
        folder: where relative paths of the recipe begin, if the node has it.
        dataset: where it lies, as the nodes see it.
        environment_file: on the nodes; see `cluster.ray.environment_file`.
        environment: names of variables, without their values.
        extensions: names of files that were sent for the recipe's `extension_folder`.
        invocation: what the user has typed to submit it, and where.
        digest: of the transloom that is to run (`head_look.digest_of`).
    """

    name: FileName
    recipe: str
    overrides: tuple[str, ...]
    run: str
    folder: str
    dataset: str
    needs: Needs
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
    def required_folders(self) -> list[str]:
        """One of these folders has to be there, or the run's is not made."""
        return [self.run, str(Path(self.run).parent), self.folder]

    def missing_folders_text(self, node: str) -> str:
        """What is told if none of them is there."""
        return (
            f"{node} has neither {Path(self.run).parent} nor {self.folder}: name a run folder on "
            "storage that all nodes see, with --run"
        )


class Attempt(FileModel):
    """One start of `transloom train`.

    Attributes:
        exit_code: as a shell has it (137 after SIGKILL); None while it runs.
        why: the last line that it printed.
        first_line, last_line: its part of log.txt, from 1; so it begins at byte first_byte.
        step: the last recorded step when it ended.
    """

    started: float
    ended: float | None = None
    exit_code: Code | None = None
    why: str = ""
    first_line: Count
    first_byte: Count
    last_line: Count | None = None
    step: Count | None = None


class Runner(FileModel):
    """The process that looks after a job."""

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
            boot=_boot(),
        )

    def is_alive_here(self) -> bool | None:
        """Whether it lives; None where this machine cannot tell."""
        if self.boot is None or self.boot != _boot():
            return None
        return start_tick(self.process) == self.started


class JobRecord(FileModel):
    """A job as its runner knows it. Times are in seconds since the epoch.

    Attributes:
        has_owned_run: whether an attempt has owned the run, so that the job has trained it.
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
    exit_code: Code | None = None
    message: str | None = None

    @property
    def restarts(self) -> int:
        return max(0, len(self.attempts) - 1)

    @property
    def begun(self) -> float:
        """The time of the first attempt; before it, that of the present state."""
        return self.attempts[0].started if self.attempts else self.since


class JobFolder:
    """The folder of a job in that of its run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "job.json"
        self.log = path / "log.txt"

    @classmethod
    def of(cls, run: Path, job_id: str) -> "JobFolder":
        return cls(run / "jobs" / job_id)

    @classmethod
    def newest_of(cls, run: Path) -> "JobFolder":
        """Return the folder of the job that trains a run, or of its last one.

        A job that was refused because another one trained the run does not count as the last.

        Raises:
            ClusterError: no job has trained it.
        """
        folders = [cls(file.parent) for file in (run / "jobs").glob("*/job.json")]
        if not folders:
            raise ClusterError(
                f"{run} has no record of a job ({run / 'jobs'}/*/job.json): it is no run's folder, "
                "or was not trained by `transloom submit`"
            )
        jobs = [(folder, folder._readable()) for folder in folders]
        jobs.sort(key=lambda job: job[1].begun if job[1] else 0.0)
        newest, record = jobs[-1]
        owners = [(folder, own) for folder, own in jobs if own and own.has_owned_run]
        if not owners:
            return newest
        owner, owned = owners[-1]  # may be the newest itself
        return owner if owner._has_refused(record, owned) else newest

    def _readable(self) -> JobRecord | None:
        """Return the record; None if it is damaged."""
        with suppress(ClusterError):
            return self.read()
        return None

    def _has_refused(self, other: JobRecord | None, own: JobRecord) -> bool:
        """Return whether this job, the run's owner, kept another from training, or still does."""
        if own.state not in FINAL:
            return not self.is_heartbeat_overdue(own)
        ended = own.attempts[-1].ended if own.attempts else None
        return other is not None and other.state in FINAL and other.begun <= (ended or 0.0)

    def is_heartbeat_overdue(self, record: JobRecord) -> bool:
        """Return at once whether the runner of this record is gone, as far as can be known."""
        lives = record.runner.is_alive_here()
        if lives is not None:
            return not lives
        try:
            return time.time() - self.record_file.stat().st_mtime > HEARTBEAT_TIMEOUT_SECONDS
        except OSError:
            return True

    def read(self) -> JobRecord:
        """The record.

        Raises:
            ClusterError: there is none, or it is damaged.
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
        """Give a sign of life."""
        with suppress(OSError):
            os.utime(self.record_file)

    def is_lost(self, sleep: Callable[[float], None] = time.sleep) -> bool:
        """Whether a job that is under way by its record has nobody any more.

        Where the process cannot be looked for, the record is watched until it is touched; after
        `SILENCE_SECONDS` it is lost.
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
        with self.record_file.open("rb") as file:  # NFS asks for the attributes anew
            return os.fstat(file.fileno()).st_mtime_ns


def parse_record(data: bytes, name: str) -> JobRecord:
    """The record that a file holds.

    Raises:
        ClusterError: it holds something else; `name` tells which file.
    """
    try:
        return JobRecord.model_validate(parse_object(data, LIMITS))
    except ValueError as error:
        problem = error_summary(error) if isinstance(error, ValidationError) else str(error)
        raise ClusterError(
            f"{name} is no record of a job: {problem}. Was it written by another version of "
            "transloom? Its log lies beside it, in log.txt"
        ) from error


def _boot() -> str | None:
    """What this machine calls its time since it was booted, and the place of process ids in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None
