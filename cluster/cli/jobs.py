"""`transloom submit` and `transloom jobs`: runs as Ray jobs on a cluster."""

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import JsonOption, Overrides, RecipeArgument, StrictOption, answer
from cluster.terminal import Terminal, hand_over, tell, tell_in_json, warn
from cluster.views.tables import AnswerTable, Column

if TYPE_CHECKING:
    from cluster.ray.jobs import Job

jobs_app = typer.Typer(no_args_is_help=True, help="Look after submitted jobs.")

Address = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's dashboard, e.g. http://127.0.0.1:8265.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id that `submit` printed.")]
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def submit(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    address: Address = DEFAULT_ADDRESS,
    run: Annotated[
        Path | None, typer.Option(help="The run's folder, on storage that all nodes see.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print the log until the job has ended.")
    ] = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run `transloom train` as a Ray job on a cluster; prints the job's id.

    The recipe travels with the job; dataset and run lie where this folder lies, which all nodes
    must see. The same command again continues the run.

    Example:  transloom submit multi30k-ende cluster.ranks=8 --address http://head:8265
    """
    from cluster.commands.train import RUNS, with_absolute_paths
    from cluster.ray import open_doors
    from cluster.ray.jobs import Attachment, wait_for_job
    from cluster.ray.jobs import submit as submit_job
    from cluster.recipe import find_recipe, load_recipe, run_name

    path = find_recipe(recipe)
    changes = overrides or []
    loaded = with_absolute_paths(load_recipe(path, changes))
    folder = (run or RUNS / run_name(path, changes)).absolute()
    if doors := open_doors.open_doors_at(address):  # before any file of ours is there
        open_doors.tell(open_doors.warning(address, doors), strict=strict, notice=warn)
    job_id = submit_job(
        [
            "transloom",
            "train",
            Attachment(path.name, path.read_bytes()),
            *changes,
            f"data.dataset={loaded.data.dataset}",
            *([f"extension_folder={loaded.extension_folder}"] if loaded.extension_folder else []),
            "--address",
            "auto",
            "--run",
            str(folder),
            *(["--strict"] if strict else []),
        ],
        address=address,
        folder=Path.cwd(),
        metadata={"recipe": loaded.name, "run": str(folder)},
    )
    if as_json:
        tell_in_json({"job": job_id, "run": str(folder)})
    else:
        tell(job_id)
    if follow:
        _print_logs(address, job_id, follow=True)
        job = wait_for_job(address, job_id)
        failed = 0 if job.status == "SUCCEEDED" else 1
        raise typer.Exit(failed if job.exit_code is None else job.exit_code)


@jobs_app.command("list")
def list_all(address: Address = DEFAULT_ADDRESS, as_json: JsonOption = False) -> None:
    """Show all jobs of a cluster, oldest first.

    Example:  transloom jobs list --address http://head:8265
    """
    from cluster.ray.jobs import list_jobs

    jobs = list_jobs(address)
    answer([asdict(job) for job in jobs], as_json, jobs_table(jobs))


def jobs_table(jobs: list["Job"]) -> AnswerTable:
    table = AnswerTable(Column("job", copied=True), "status", "started", Column("run", copied=True))
    for job in jobs:
        table.add(job.id, job.status, _time(job.started), job.metadata.get("run", ""))
    return table


@jobs_app.command()
def status(job: JobId, address: Address = DEFAULT_ADDRESS, as_json: JsonOption = False) -> None:
    """Show how a job stands.

    Example:  transloom jobs status raysubmit_abc --json
    """
    from cluster.ray.jobs import job_status

    found = job_status(address, job)
    if as_json:
        tell_in_json(asdict(found))
    else:
        Terminal().print(_describe(found), soft_wrap=True)


@jobs_app.command()
def logs(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    address: Address = DEFAULT_ADDRESS,
) -> None:
    """Print what a job has printed.

    Example:  transloom jobs logs raysubmit_abc --follow
    """
    _print_logs(address, job, follow=follow)


@jobs_app.command()
def stop(job: JobId, address: Address = DEFAULT_ADDRESS, as_json: JsonOption = False) -> None:
    """Stop a job. Ray gives it three seconds: it goes on from its newest checkpoint later.

    Example:  transloom jobs stop raysubmit_abc
    """
    from cluster.ray.jobs import stop_job

    stopped = stop_job(address, job)
    if as_json:
        tell_in_json({"job": job, "stopped": stopped})
    else:
        tell(f"{job} was asked to stop" if stopped else f"{job} had ended already")


def _print_logs(address: str, job_id: str, *, follow: bool) -> None:
    from cluster.ray.jobs import job_logs

    for piece in job_logs(address, job_id, follow=follow):
        hand_over(piece, end="")


def _describe(job: "Job") -> str:
    lines = [f"{job.id}: {job.status}", f"run      {job.metadata.get('run', '?')}"]
    lines.append(f"started  {_time(job.started)}")
    if job.finished:
        lines.append(f"ended    {_time(job.ended)}, exit code {job.exit_code}")
    if job.message:
        lines.append(f"message  {job.message}")
    return "\n".join(lines)


def _time(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
