"""Commands `transloom deploy …`: train as a Slurm job, or as a RayJob on Kubernetes."""

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.terminal import note, print_json_line, print_line, print_result
from run_store.run_url import run_url
from transloom.cli.options import JsonOption, Overrides, RecipeArgument, SharedRunOption

if TYPE_CHECKING:
    from cluster.launchers.registry import Launch, Launcher

deploy_app = typer.Typer(no_args_is_help=True, help="Train a run as a Slurm job or on Kubernetes.")

OutputOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File to which to write the script or manifest, instead of printing it.",
    ),
]


@deploy_app.command("slurm")
def slurm(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: SharedRunOption = None,
    array: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE,VALUE…",
            help="Train one run for each value of a field, such as seed=1,2,3, in a job array.",
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --array: maximum number of runs that train at the same time."
        ),
    ] = None,
    submit: Annotated[
        bool,
        typer.Option("--submit", help="Submit the script to Slurm, and print the job's number."),
    ] = False,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the script of a Slurm job that trains or continues a run.

    Shortly before its time limit, the job writes a checkpoint and requeues itself, until the run
    has finished. The recipe sets nodes, partition and time limit; `transloom fields cluster.slurm`
    explains these fields.

    Examples:

      transloom deploy slurm multi30k-ende cluster.slurm.nodes=2 cluster.ranks=2 --submit

      transloom deploy slurm multi30k-ende --array seed=1,2,3 --at-once 2 --submit
    """
    from cluster.launchers import slurm
    from cluster.launchers.registry import LAUNCHERS

    if array and run:
        raise typer.BadParameter(
            "--array and --run are both given, but each run of an array has a separate "
            "folder: leave out --run"
        )
    launcher = LAUNCHERS["slurm"](array=array, at_once=at_once)
    launch = _launch(launcher, recipe, overrides, run, output)
    job = slurm.submit(launch.text) if submit else None
    if as_json or not job:
        _show(launcher, launch, output, as_json, job=job)
        return
    print_line(job)
    if output:
        note(f"Wrote the job's script to {output}.")


@deploy_app.command("kubernetes")
def kubernetes(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: SharedRunOption = None,
    template: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Your copy of the template rayjob.yaml."),
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a RayJob that trains a run on Kubernetes, for `kubectl apply -f -`.

    The cluster needs KubeRay 1.7, and a volume that all pods mount at /shared. Without --run, the
    run's folder is /shared/runs/NAME. The recipe sets image, queue, priority and memory; `transloom
    fields cluster.kubernetes` explains these fields. Edit everything else in the text that is
    printed, or in a copy of the template.

    Example:  transloom deploy kubernetes mine.yaml data.dataset=/shared/mine | kubectl apply -f -
    """
    from cluster.launchers.registry import LAUNCHERS

    launcher = LAUNCHERS["kubernetes"](**({"template": template} if template else {}))
    _show(launcher, _launch(launcher, recipe, overrides, run, output), output, as_json)


def _launch(
    launcher: "Launcher",
    recipe: str,
    overrides: list[str] | None,
    run: Path | None,
    output: Path | None,
) -> "Launch":
    """Return the job that a launcher describes for a recipe; write its text to `output`, if any."""
    from cluster.recipe import find_recipe

    launch = launcher.launch(find_recipe(recipe), overrides or [], run)
    if output:
        output.write_text(launch.text, encoding="utf-8")
    return launch


def _show(
    launcher: "Launcher", launch: "Launch", output: Path | None, as_json: bool, **values: object
) -> None:
    """Print the text or, if it is in a file, the file's name and the command that submits it."""
    if as_json:
        file = str(output) if output else None
        print_json_line({**launch.values, **values, "file": file})
    elif output:
        command = shlex.join([*launcher.submission, str(output)])
        print_line(f"Wrote {launch.what} to {output}. Submit it with:\n\n  {command}")
    else:
        print_result(launch.text, end="")


@deploy_app.command("mirror-folder", hidden=True)
def mirror_folder_of(url: str) -> None:
    """Print the folder on this node in which a run in an object store is trained."""
    from run_store.run_copies import mirror_folder

    print_line(str(mirror_folder(run_url(url))))


@deploy_app.command("slurm-node", hidden=True)
def slurm_node(
    cpus: Annotated[int, typer.Option(help="Number of CPUs that the node offers to Ray.")],
    gpus: Annotated[int, typer.Option(help="Number of GPUs that the node offers to Ray.")],
    niceness: Annotated[int, typer.Option(help="Niceness of the Ray workers on the node.")] = 0,
) -> None:
    """Start Ray on a node of a Slurm job; the job's script runs this command."""
    from cluster.launchers.slurm_node import serve_node
    from cluster.ray.started_node import NodeSettings

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the node ends with the Slurm task
    serve_node(NodeSettings(cpus=cpus, gpus=gpus, niceness=niceness), sys.stdin, print_line)
