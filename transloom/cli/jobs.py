"""Commands `transloom submit` and `transloom jobs`: runs as Ray jobs on a cluster."""

import os
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import ClusterError
from foundation.location import without_credentials
from foundation.terminal import note, print_json_line, print_line, print_result, warn
from foundation.wording import join_items
from run_store import RUNS
from run_store.run_url import is_run_url
from run_store.start import DEFAULT_PRIORITY, StopOrder
from transloom.cli.options import (
    JsonOption,
    Overrides,
    RecipeArgument,
    SharedRunOption,
    StrictOption,
    answer,
)
from transloom.observe.terminal.tables import AnswerTable, Column
from transloom.observe.terminal.time_format import clock

if TYPE_CHECKING:
    from cluster.launchers.ray_job.job_record import Attempt
    from cluster.launchers.ray_job.job_summary import JobSummary
    from cluster.launchers.ray_job.submission import SubmittedJob

ENTRY_POINT = "transloom.cli.job_entry"  # imported on the head node

jobs_app = typer.Typer(no_args_is_help=True, help="List, follow, stop and retry submitted jobs.")

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="URL of the Ray cluster's dashboard, such as http://127.0.0.1:8265.",
    ),
]
JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Job id that `transloom submit` printed, or a run's folder, which means the "
        "run's latest job. With a folder, the cluster is not asked for the job.",
    ),
]
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def submit(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    address: Address = DEFAULT_ADDRESS,
    run: SharedRunOption = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME",
            help="Name of an environment variable that the job needs; repeat the option for "
            "several variables. The value comes from --env-file, or else from the "
            "environment in which `ray start` ran.",
        ),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File with NAME=VALUE lines that exists on the cluster's nodes, with mode 0600. "
            "The job reads it there.",
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait",
            help="If the cluster lacks capacity, wait for the job's share of it. With --no-wait, "
            "fail immediately.",
        ),
    ] = True,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print the log until the job ends.")
    ] = False,
    owner: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Owner of the job. Default: your USER@HOST."),
    ] = None,
    priority: Annotated[
        int,
        typer.Option(
            help="Priority of the job, from 0 to 100. Jobs with a higher one get ranks first."
        ),
    ] = DEFAULT_PRIORITY,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit `transloom train` as a Ray job to a cluster, and print the job's id.

    The job includes the recipe, and also transloom's code unless the cluster has the same version.
    Dataset and run must be on storage that all nodes share, or at URLs of an object store. Run the
    same command again to continue the run.

    Examples:

      transloom submit multi30k-ende cluster.ranks=2 --address http://head:8265

      transloom submit phrasebook --env-file /etc/keys.env --run /shared/runs/phrasebook
    """
    listener = _Listener(address, silent=as_json)
    from cluster.ray.exposure import ClusterExposure

    shared = None if run and is_run_url(run) else run
    folders = [*([shared] if shared else []), shared.parent if shared else RUNS, Path.cwd()]
    cluster_exposure = ClusterExposure(address, [str(folder.absolute()) for folder in folders])
    # Importing this takes seconds, during which the exposure check runs.
    from cluster.launchers.ray_job import submission

    submitted = submission.submit(
        submission.SubmitOptions(
            recipe,
            overrides or [],
            run,
            environment_file=env_file,
            environment=env or [],
            wait=wait,
            strict=strict,
            owner=owner,
            priority=priority,
        ),
        cluster_exposure,
        listener,
        ENTRY_POINT,
    )
    _print_submitted(submitted, address, as_json)
    if follow:
        _follow(address, submitted.id)


@jobs_app.command("list")
def list_all(address: Address = DEFAULT_ADDRESS, as_json: JsonOption = False) -> None:
    """List all jobs of a cluster, oldest first, with their shares and the reasons for them.

    Example:  transloom jobs list --address http://head:8265
    """
    from cluster.launchers.ray_job.status import all_job_summaries

    found = all_job_summaries(address)
    answer([summary.to_json() for summary in found], as_json, jobs_table(found))


def jobs_table(summaries: list["JobSummary"]) -> AnswerTable:
    table = AnswerTable(
        *(Column("job", copied=True), "owner", "priority", "status", "ranks", "target"),
        *("submitted", "restarts", Column("run", copied=True), "state of the run", "reason"),
    )
    for summary in summaries:
        started = summary.job.started if summary.job else None
        record, claim, share = summary.record, summary.claim, summary.share
        table.add(
            *(summary.id, claim.owner if claim else "", str(claim.priority) if claim else ""),
            *(summary.status, str(record.ranks) if record and share else ""),
            *(str(share.ranks) if share else "", _time(started)),
            *(str(record.restarts) if record else "", summary.run, _run_state(summary)),
            summary.waits_for or (share.reason if share else ""),
        )
    return table


def _run_state(summary: "JobSummary") -> str:
    """Return the state of a job's run; empty if it is not readable on this machine."""
    from transloom.observe.terminal.run_status_text import state_text

    folder = Path(summary.run)
    if summary.folder and is_run_url(summary.run):
        folder = summary.folder.parent.parent
    return state_text(folder) if summary.run else ""


@jobs_app.command()
def status(job: JobId, address: Address = DEFAULT_ADDRESS, as_json: JsonOption = False) -> None:
    """Show the status of a job, what it waits for, and its restarts with their causes.

    Examples:

      transloom jobs status phrasebook-3f9a1c2b --json

      transloom jobs status /shared/runs/phrasebook
    """
    found = _job_summary(job, address)
    answer(found.to_json(), as_json, _describe(found))


@jobs_app.command()
def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new output until the job ends.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines",
            "-n",
            min=0,
            help="Number of lines to print, from the end of the output. Default: all lines.",
        ),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    as_json: JsonOption = False,
) -> None:
    """Print the output of a job.

    Examples:

      transloom jobs logs phrasebook-3f9a1c2b --follow

      transloom jobs logs /shared/runs/phrasebook -n 20
    """
    from cluster.launchers.ray_job import status

    if status.is_folder(job):
        pieces = status.log_in(job, follow=follow, lines=lines)
    else:
        pieces = status.log_of(address, job, follow=follow, lines=lines)
    if as_json:
        print_json_line({"job": job, "log": "".join(pieces)})
        return
    for piece in pieces:
        print_result(piece, end="")


@jobs_app.command()
def stop(
    job: JobId,
    address: Address = DEFAULT_ADDRESS,
    owner: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Owner of the job, if it is another user's."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a job after it has written a checkpoint, without restarting it.

    With a job id, the command returns when the job has stopped; with a folder, it returns
    immediately. A job that needs longer than cluster.grace_seconds to stop is killed. The job's
    log and status say who stopped it.

    Examples:

      transloom jobs stop phrasebook-3f9a1c2b

      transloom jobs stop phrasebook-3f9a1c2b --owner ada@laptop
    """
    from cluster.launchers.ray_job import status
    from cluster.ray.jobs import stop_job
    from cluster.supervision.invocation import current_user

    me = current_user()
    if status.is_folder(job):
        found = status.job_summary_in(job)
        name, stopped = found.id, not found.finished
        if stopped:
            _require_owner(found, owner, me)
            _ask_to_stop(job, found, StopOrder(by=me))
        text = (
            f"Requested that {name} {_what_stops(found)}. `transloom jobs status {job}` shows when "
            "the job has stopped"
        )
    else:
        before = status.job_summary_of(address, job)
        if not before.finished:
            _require_owner(before, owner, me)
        name, stopped = job, stop_job(address, job, None if before.finished else me)
        if stopped and not as_json:
            note(f"requested that {job} {_what_stops(before)}; Ctrl-C does not cancel this request")
        wait = status.wait_until_over if stopped else status.job_summary_of
        found = wait(address, job)
        text = _describe(found)
    if not stopped:
        text = f"{name} has already ended: {found.status}"
    answer({"job": name, "stopped": stopped, "status": found.status}, as_json, text)


@jobs_app.command()
def retry(
    job: JobId,
    address: Address = DEFAULT_ADDRESS,
    env_file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File of variables on the nodes, if the job was submitted with one. A record may "
            "be another user's, so only a file that you name is used.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job again under a new id, with the same recipe, overrides and options.

    Examples:

      transloom jobs retry phrasebook-3f9a1c2b

      transloom jobs retry phrasebook-3f9a1c2b --env-file /secure/keys.env

      transloom jobs retry /shared/runs/phrasebook --address http://new-head:8265
    """
    from cluster.launchers.ray_job.submission import resubmit

    found = _job_summary(job, address)
    if not found.finished:
        raise ClusterError(
            f"{found.id} is {found.status}, and two jobs cannot train the same run: stop the first "
            f"job with `transloom jobs stop {found.id}`"
        )
    if found.record is None:
        raise ClusterError(
            f"The record of {found.id}'s submission cannot be read on this machine. Name the run's "
            "folder instead of the job id, or submit the recipe again"
        )
    _require_named_environment(found.record.request.environment_file, env_file, job)
    listener = _Listener(address, silent=as_json)
    submitted = resubmit(found.record.request, address, listener, found.folder, ENTRY_POINT)
    _print_submitted(submitted, address, as_json)


def _require_named_environment(recorded: str | None, named: Path | None, job: str) -> None:
    """Check that the user has named the file of variables that a record names, and owns this file.

    Otherwise the record of another user could send this user's secrets to a job.

    Raises:
        ClusterError: the user names no file or a different file, or does not own the file.
    """
    if recorded is None and named is None:
        return
    if recorded is None or named is None or Path(recorded) != named:
        raise ClusterError(
            f"The record of {job} names "
            f"{f'the file of variables {recorded!r}' if recorded else 'no file of variables'}, but "
            f"--env-file is {str(named) if named else 'not given'}. "
            + (
                f"If the file is yours and the job may read it, add --env-file {quote(recorded)}"
                if recorded
                else "Omit --env-file, or submit the recipe again"
            )
        )
    with suppress(FileNotFoundError):  # the file may exist only on the cluster's nodes
        if named.stat().st_uid != os.geteuid():
            raise ClusterError(
                f"--env-file {named} belongs to another user, expected a file of yours: submit the "
                "recipe again with one"
            )


def _job_summary(job: str, address: str) -> "JobSummary":
    from cluster.launchers.ray_job import status

    return (
        status.job_summary_in(job) if status.is_folder(job) else status.job_summary_of(address, job)
    )


def _what_stops(found: "JobSummary") -> str:
    """Return, for a message, a clause about how a job stops."""
    if found.waits:
        return "stop waiting; it has not begun to train"
    return "write a checkpoint and stop, without a restart"


def _require_owner(summary: "JobSummary", named: str | None, me: str) -> None:
    """Check that a job is this user's, or that the user has named its owner.

    Raises:
        ClusterError: the job belongs to a user that the command line does not name.
    """
    claim = summary.claim
    if claim and (named or me) != claim.owner:
        raise ClusterError(
            f"{summary.id} is a job of {claim.owner}, "
            f"{f'not of {named}' if named else f'and you are {me}'}. To stop it nevertheless, add "
            f"--owner {quote(claim.owner)}"
        )


def _ask_to_stop(folder: str, summary: "JobSummary", order: StopOrder) -> None:
    """Ask the latest job of a run to stop, by a file in the run's folder."""
    from run_store.folder import RunFolder

    if is_run_url(folder):
        from run_store.remote.head import request_stop  # imports obstore

        request_stop(folder, order.by)
    else:
        assert summary.folder is not None
        RunFolder(summary.folder.parent.parent).ask_to_stop(order)


class _Listener:
    """Listener of a submission that prints progress and warnings to standard error."""

    def __init__(self, address: str, *, silent: bool) -> None:
        """Announce the connection to the cluster at this address, unless `silent`."""
        self._silent = silent
        self.progress(f"connecting to {without_credentials(address)} to inspect its head node")

    def warn(self, text: str) -> None:
        warn(text)

    def progress(self, text: str) -> None:
        if not self._silent:
            note(f"{text} …")


def _print_submitted(submitted: "SubmittedJob", address: str, as_json: bool) -> None:
    """Print the job's id on standard output, and commands for the job on standard error."""
    if as_json:
        print_json_line(submitted.to_json())
        return
    from cluster.ray.authentication import token_location
    from transloom.cli.next_steps import own_command

    print_line(submitted.id)
    where = "" if address == DEFAULT_ADDRESS else f" --address {address}"
    for what, command in (
        ("follow", f"{own_command()} jobs logs -f {submitted.id}{where}"),
        ("stop", f"{own_command()} jobs stop {submitted.id}{where}"),
        ("dashboard", f"{address.rstrip('/')}/#/jobs/{submitted.id}"),
    ):
        note(f"{what + ':':<11}{command}")
    if place := token_location():
        note(f"           (it asks for the cluster's token, which is in {place})")


def _follow(address: str, job_id: str) -> None:
    from cluster.launchers.ray_job import status

    for piece in status.log_of(address, job_id, follow=True, lines=None):
        print_result(piece, end="")
    found = status.wait_until_over(address, job_id)
    failed = 0 if found.status == "SUCCEEDED" else 1
    raise typer.Exit(failed if found.exit_code is None else found.exit_code)


def _describe(summary: "JobSummary") -> str:
    from cluster.launchers.ray_job.job_record import exit_code_text

    lines = [f"{summary.id}: {summary.status}", f"run      {summary.run or '?'}"]
    record, job = summary.record, summary.job
    if job and job.started:
        lines.append(f"started  {_time(job.started)}")
    if claim := summary.claim:
        tags = f", tags {join_items(claim.tags)}" if claim.tags else ""
        lines.append(f"owner    {claim.owner}, priority {claim.priority}{tags}")
    if record and record.waits_for and not summary.finished:
        lines.append(f"waits    for {record.waits_for}")
    elif record and (share := summary.share):
        lines.append(f"ranks    {record.ranks}, target {share.ranks}: {share.reason}")
    if state := _run_state(summary):
        lines.append(f"state    {state}")
    if record and summary.folder:
        lines.append(f"log      {summary.folder / 'log.txt'}")
        lines += [_restart(attempt) for attempt in record.attempts[:-1]]
    if summary.lost:
        lines.append(
            "lost     the job's processes ended without an exit code, because the head or the "
            "job's node was lost. Continue from the newest checkpoint with `transloom jobs retry` "
            "and the run's folder"
        )
    elif summary.finished:
        ended = f"{_time(job.ended)}, " if job and job.ended else ""
        lines.append(f"ended    {ended}{exit_code_text(summary.exit_code)}")
    if summary.message:
        lines.append(f"message  {summary.message}")
    return "\n".join(lines)


def _restart(attempt: "Attempt") -> str:
    return (
        f"restart  after {attempt.end_text}, {_time(attempt.ended)}: {_log_lines(attempt)}: "
        f"{attempt.why}"
    )


def _log_lines(attempt: "Attempt") -> str:
    first, last = attempt.first_line, attempt.last_line
    if last is None or last < first:
        return "nothing in the log"
    return f"log line {first}" if first == last else f"log lines {first}–{last}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else clock(seconds, has_date=True)
