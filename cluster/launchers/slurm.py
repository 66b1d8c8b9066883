"""The script of a Slurm job that trains a run, or one run in each task of an array.

    recipe ──▶ #SBATCH lines        what Slurm is asked for
           ──▶ settings             recipe, runs, CPUs of a node: shell variables
           ──▶ slurm_job.sh         the same in every job: Ray on its nodes, TERM, requeue

On one node the driver starts Ray by itself. On several, one step of the job (`srun`) starts a node
of Ray on each (`cluster.launchers.slurm_node`).
"""

import math
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.errors import EXIT_PREEMPTED, ClusterError, RecipeError
from cluster.recipe import Recipe, run_name
from foundation.wording import counted

# From the run's leaving to the requeue; and Slurm may send the signal up to a minute early.
MARGIN_SECONDS = 60
# Below that, a start would hardly get to its first step before it is told to stop again.
MIN_WORK_SECONDS = 120
JOB = Path(__file__).with_name("slurm_job.sh")


@dataclass(frozen=True)
class SlurmRun:
    """A run that a job trains.

    Attributes:
        overrides: of the recipe, such as `seed=2`.
        folder: absolute, on storage that all nodes see.
    """

    overrides: tuple[str, ...]
    folder: Path


def runs_of(
    recipe_file: Path, overrides: Sequence[str], array: str | None, run: Path | None, parent: Path
) -> list[SlurmRun]:
    """The runs of a job: one, or one for each value of an array.

    Args:
        array: KEY=VALUE,VALUE…; None for one run.
        run: the folder of the one run; by default it is named by the recipe, below `parent`.

    Raises:
        RecipeError: the recipe is wrong with one of the values, or two of them are the same run.
    """
    key, equals, values = (array or "").partition("=")
    if array and not (key and equals and all(values.split(","))):
        raise RecipeError(f"--array {array} is not of the form KEY=VALUE,VALUE, e.g. seed=1,2,3")
    ends = [(f"{key}={value}",) for value in values.split(",")] if array else [()]
    runs: list[SlurmRun] = []
    for end in ends:
        own = (*overrides, *end)
        folder = (run or parent / run_name(recipe_file, own)).absolute()
        if folder in [other.folder for other in runs]:
            raise RecipeError(
                f"--array {array}: two of the values are one and the same run, {folder}. Name each "
                "once, and a field that makes another run (`transloom fields` says which do)"
            )
        runs.append(SlurmRun(own, folder))
    return runs


@dataclass(frozen=True)
class NodeShare:
    """What each node of a job gives."""

    cpus: int
    gpus: int

    @classmethod
    def of(cls, cluster: ClusterConfig) -> "NodeShare":
        """
        Raises:
            RecipeError: there are more nodes than ranks.
        """
        nodes = cluster.slurm.nodes
        if nodes > cluster.max_ranks:
            raise RecipeError(
                f"cluster.slurm.nodes is {nodes}, but cluster.ranks is {cluster.max_ranks}: some "
                f"nodes would have no rank. Ask for at most {counted(cluster.max_ranks, 'node')}"
            )
        ranks = math.ceil(cluster.max_ranks / nodes)
        workers = math.ceil(cluster.data_workers / nodes)
        reserved = ranks * cluster.cpus_per_rank + workers * cluster.cpus_per_data_worker
        cpus = cluster.slurm.cpus_per_node or max(1, math.ceil(reserved))
        if cpus < reserved:
            raise RecipeError(
                f"cluster.slurm.cpus_per_node is {cpus}, but {counted(ranks, 'rank')} and "
                f"{counted(workers, 'data worker')} of a node reserve "
                f"{counted(float(reserved), 'CPU')}: ask for at least {math.ceil(reserved)}"
            )
        return cls(cpus=cpus, gpus=ranks * cluster.gpus_per_rank)


def slurm_script(
    recipe: Recipe,
    recipe_file: Path,
    runs: Sequence[SlurmRun],
    *,
    folder: Path,
    programs: Path,
    at_once: int | None = None,
) -> str:
    """The script, which `sbatch` takes as it is.

    Args:
        recipe: with the overrides that all runs share.
        runs: one, or those of an array's tasks.
        folder: where the job runs and leaves its log.
        programs: where `transloom` lies on all nodes; if it does not, PATH is searched.
        at_once: the most tasks of an array that run at the same time.

    Raises:
        RecipeError: the nodes, CPUs or minutes that the recipe asks for will not do.
        ClusterError: Slurm cannot run a job in this folder.
    """
    _check_folder(folder)
    share = NodeShare.of(recipe.cluster)
    lines = ["#!/bin/bash", *_options(recipe, share, len(runs), folder, at_once), ""]
    settings = {
        "programs": [str(programs)],
        "recipe": [str(recipe_file.absolute())],
        "cpus": [str(share.cpus)],
        "gpus": [str(share.gpus)],
        "niceness": [str(recipe.cluster.niceness)],
        "preempted": [str(EXIT_PREEMPTED)],
    }
    lines += [f"{name}={shlex.join(value)}" for name, value in settings.items()]
    lines += ["# Overrides and folder of the run; in an array, of each task."]
    lines += [f"overrides_{n}=({shlex.join(run.overrides)})" for n, run in enumerate(runs)]
    lines += [f"runs=({shlex.join(str(run.folder) for run in runs)})", ""]
    if recipe.cluster.slurm.setup:
        lines += ["# cluster.slurm.setup", *recipe.cluster.slurm.setup, ""]
    return "\n".join(lines) + "\n" + JOB.read_text(encoding="utf-8")


def notice_seconds(cluster: ClusterConfig) -> int:
    """How long before the end of its time a job is asked to stop."""
    return math.ceil(cluster.grace_seconds) + MARGIN_SECONDS


def _options(
    recipe: Recipe, share: NodeShare, tasks: int, folder: Path, at_once: int | None
) -> list[str]:
    slurm = recipe.cluster.slurm
    notice = notice_seconds(recipe.cluster)
    least = math.ceil((notice + MIN_WORK_SECONDS) / 60)
    if slurm.time_limit_minutes is not None and slurm.time_limit_minutes < least:
        raise RecipeError(
            f"cluster.slurm.time_limit_minutes is {slurm.time_limit_minutes}, but the job is asked "
            f"to stop {notice} s before its end (cluster.grace_seconds and {MARGIN_SECONDS}): ask "
            f"for at least {counted(least, 'minute')}, or lower cluster.grace_seconds"
        )
    array = tasks > 1
    options = {
        "job-name": recipe.name,
        "nodes": slurm.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": share.cpus,
        "gpus-per-node": share.gpus or None,
        "partition": slurm.partition,
        "account": slurm.account,
        "time": slurm.time_limit_minutes,
        "array": (f"0-{tasks - 1}" + (f"%{at_once}" if at_once else "")) if array else None,
        "signal": f"B:TERM@{notice}",  # to this script alone
        "open-mode": "append",
        "chdir": folder,
        "output": f"{recipe.name}-{'%A_%a' if array else '%j'}.out",
    }
    given = [f"--{name}={_quoted(str(v))}" for name, v in options.items() if v is not None]
    return [f"#SBATCH {option}" for option in [*given, "--requeue", *slurm.options]]


def _check_folder(folder: Path) -> None:
    """Check that a job can run in a folder: Slurm expands patterns in the log's whole path.

    Raises:
        ClusterError: its path has a character that no quotes protect.
    """
    if found := re.search(r"[%\\\r\n]", str(folder)):
        raise ClusterError(
            f"The current folder is {str(folder)!r}, and Slurm would interpret its {found[0]!r}. "
            "The job would run there and leave its log there: run the command in a folder whose "
            "path has no line end, % or backslash"
        )


def _quoted(value: str) -> str:
    """Quote a value of one line so that `sbatch` reads it from an #SBATCH line as it is.

    Unquoted, a space ends the value and # begins a comment. A backslash escapes the next character
    (Slurm 22.05; `tests/lab/test_slurm.py` asks the Slurm that is installed).
    """
    if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def submit(script: str) -> str:
    """Hand a script to `sbatch`; return the job's number.

    Raises:
        ClusterError: there is no `sbatch` here, or it refuses.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(
            "There is no sbatch on this machine, so no job can be submitted from here: run the "
            "command where Slurm's commands are, or leave out --submit and take the script there"
        ) from error
    if done.returncode:
        raise ClusterError(f"Slurm refuses the job: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]  # a cluster's name may follow
