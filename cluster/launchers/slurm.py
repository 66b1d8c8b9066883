"""The script of a Slurm job that trains a run, or one run in each task of an array.

    recipe ──▶ #SBATCH lines        options for Slurm
           ──▶ settings             recipe, runs, CPUs of a node: shell variables
           ──▶ slurm_job.sh         the same for every job: starts Ray, handles TERM, requeues

On one node, the driver starts Ray itself. On several nodes, one step of the job (`srun`) starts a
Ray node on each of them (`cluster.launchers.slurm_node`).
"""

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.config import ClusterConfig
from cluster.errors import EXIT_PREEMPTED, ClusterError, RecipeError
from cluster.launchers.registry import Launch, Launcher, check_encodable
from cluster.recipe import Recipe, load_recipe, run_name
from foundation.wording import counted
from run_store import RUNS
from run_store.folder import RunFolder

# Time reserved for the requeue, after cluster.grace_seconds and before the job's time limit. (Slurm
# may send the signal up to a minute early.)
MARGIN_SECONDS = 60
# Minimum time for training. With less, a job would hardly reach its first step before it is asked
# to stop.
MIN_WORK_SECONDS = 120
JOB = Path(__file__).with_name("slurm_job.sh")
# Options of sbatch that the script sets itself, with their short forms, and a remedy. Options of
# `cluster.slurm.options` follow them in the script and would override them.
OWN_OPTIONS = {
    "job-name": ("J", "use name in the recipe"),
    "nodes": ("N", "use cluster.slurm.nodes"),
    "ntasks": ("n", "use cluster.slurm.nodes"),
    "ntasks-per-node": ("", "use cluster.slurm.nodes"),
    "cpus-per-task": ("c", "use cluster.slurm.cpus_per_node"),
    "partition": ("p", "use cluster.slurm.partition"),
    "account": ("A", "use cluster.slurm.account"),
    "qos": ("q", "use cluster.slurm.qos"),
    "nice": ("", "use cluster.slurm.nice"),
    "time": ("t", "use cluster.slurm.time_limit_minutes"),
    "time-min": ("", "use cluster.slurm.time_limit_minutes"),
    "array": ("a", "use --array of this command"),
    "signal": ("", "use cluster.grace_seconds"),
    "requeue": ("", "each job is requeued until its run has finished"),
    "no-requeue": ("", "each job is requeued until its run has finished"),
    "open-mode": ("", "each start of a job appends to its log"),
    "output": ("o", "run the command in another folder"),
    "chdir": ("D", "run the command in another folder"),
}
# Environment variables with which sbatch overrides these options of the script.
OWN_VARIABLES = {
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_ARRAY_INX": "array",
    "SBATCH_SIGNAL": "signal",
    "SBATCH_NO_REQUEUE": "no-requeue",
    "SBATCH_OPEN_MODE": "open-mode",
    "SBATCH_OUTPUT": "output",
}


@dataclass(frozen=True)
class SlurmLauncher(Launcher):
    """Launcher of jobs under Slurm.

    Attributes:
        array: KEY=VALUE,VALUE… for an array with one run for each value of a field; or None.
        at_once: maximum number of an array's runs that train at the same time.
    """

    submission = ("sbatch",)

    array: str | None = None
    at_once: int | None = None

    def launch(self, recipe_file: Path, overrides: Sequence[str], run: Path | None) -> Launch:
        runs = runs_of(recipe_file, overrides, self.array, run, RUNS)
        _check_environment(os.environ)
        script = slurm_script(
            load_recipe(recipe_file, runs[0].overrides),
            recipe_file,
            runs,
            folder=Path.cwd(),
            programs=Path(sys.executable).parent,
            at_once=self.at_once,
        )
        check_encodable(script)
        locations = [one.location for one in runs]
        return Launch("the job", script, {"runs": locations, "script": script})


@dataclass(frozen=True)
class SlurmRun:
    """A run that a job trains.

    Attributes:
        overrides: overrides of the recipe, such as `seed=2`.
        location: absolute path on storage that all nodes see, or the URL of a run.
    """

    overrides: tuple[str, ...]
    location: str


def runs_of(
    recipe_file: Path, overrides: Sequence[str], array: str | None, run: Path | None, parent: Path
) -> list[SlurmRun]:
    """Return the runs of a job: one, or one for each value of an array.

    Args:
        array: KEY=VALUE,VALUE…; None for one run.
        run: the folder or URL of a single run; None for a folder below `parent`, named after the
            recipe and its overrides.
        parent: parent folder of the runs.

    Raises:
        RecipeError: the recipe is invalid with one of the values, or two values yield the same run.
    """
    key, equals, values = (array or "").partition("=")
    if array and not (key and equals and all(values.split(","))):
        raise RecipeError(f"--array {array} is not of the form KEY=VALUE,VALUE, e.g. seed=1,2,3")
    ends = [(f"{key}={value}",) for value in values.split(",")] if array else [()]
    runs: list[SlurmRun] = []
    for end in ends:
        own = (*overrides, *end)
        folder = RunFolder.of(run or parent / run_name(recipe_file, own))
        location = folder.url or str(folder.path.absolute())
        if location in [other.location for other in runs]:
            raise RecipeError(
                f"--array {array}: two of the values give the same run, {location}. Give each "
                "value once, for a field that changes a run's identity (see `transloom fields`)"
            )
        runs.append(SlurmRun(own, location))
    return runs


@dataclass(frozen=True)
class NodeShare:
    """Resources of each node of a job."""

    cpus: int
    gpus: int

    @classmethod
    def of(cls, cluster: ClusterConfig) -> "NodeShare":
        """Derive the resources of a node from the recipe's cluster section.

        Raises:
            RecipeError: the recipe requests more nodes than ranks, or too few CPUs per node.
        """
        nodes = cluster.slurm.nodes
        if nodes > cluster.max_ranks:
            raise RecipeError(
                f"cluster.slurm.nodes is {nodes}, but cluster.ranks is {cluster.max_ranks}, so "
                "some nodes would have no rank. Set cluster.slurm.nodes to at most "
                f"{cluster.max_ranks}"
            )
        ranks = math.ceil(cluster.max_ranks / nodes)
        workers = math.ceil(cluster.data_workers / nodes)
        reserved = ranks * cluster.cpus_per_rank + workers * cluster.cpus_per_data_worker
        cpus = cluster.slurm.cpus_per_node or max(1, math.ceil(reserved))
        if cpus < reserved:
            raise RecipeError(
                f"cluster.slurm.cpus_per_node is {cpus}, but {counted(ranks, 'rank')} and "
                f"{counted(workers, 'data worker')} of a node reserve "
                f"{counted(float(reserved), 'CPU')}. Set it to at least {math.ceil(reserved)}"
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
    """Return the script for `sbatch`.

    Args:
        recipe: the recipe, with the overrides that all runs share.
        runs: one run, or the runs of an array's tasks.
        folder: working directory of the job, to which its log is written.
        programs: directory of `transloom` on all nodes; PATH is searched if it is missing there.
        at_once: maximum number of an array's tasks that run at the same time.

    Raises:
        RecipeError: the recipe requests impossible nodes, CPUs or minutes.
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
        "array": ["yes" if len(runs) > 1 else ""],
    }
    lines += [f"{name}={shlex.join(value)}" for name, value in settings.items()]
    lines += ["# Overrides and folder of the run; in an array, of each task."]
    lines += [f"overrides_{n}=({shlex.join(run.overrides)})" for n, run in enumerate(runs)]
    lines += [f"runs=({shlex.join(run.location for run in runs)})", ""]
    if recipe.cluster.slurm.setup:
        lines += ["# cluster.slurm.setup", *recipe.cluster.slurm.setup, ""]
    return "\n".join(lines) + "\n" + JOB.read_text(encoding="utf-8")


def notice_seconds(cluster: ClusterConfig) -> int:
    """Return the seconds before a job's time limit at which the job is asked to stop."""
    return math.ceil(cluster.grace_seconds) + MARGIN_SECONDS


def _options(
    recipe: Recipe, share: NodeShare, tasks: int, folder: Path, at_once: int | None
) -> list[str]:
    slurm = recipe.cluster.slurm
    for place, option in enumerate(slurm.options):
        _check_option(option, f"cluster.slurm.options.{place}")
    notice = notice_seconds(recipe.cluster)
    least = math.ceil((notice + MIN_WORK_SECONDS) / 60)
    if slurm.time_limit_minutes is not None and slurm.time_limit_minutes < least:
        raise RecipeError(
            f"cluster.slurm.time_limit_minutes is {slurm.time_limit_minutes}, but the job is asked "
            f"to stop {notice} s before this limit (cluster.grace_seconds plus {MARGIN_SECONDS} "
            f"s). Set the limit to at least {counted(least, 'minute')}, or lower "
            "cluster.grace_seconds"
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
        "qos": slurm.qos,
        "nice": slurm.nice or None,
        "time": slurm.time_limit_minutes,
        "array": (f"0-{tasks - 1}" + (f"%{at_once}" if at_once else "")) if array else None,
        "signal": f"B:TERM@{notice}",  # B: signal only the batch script
        "open-mode": "append",
        "chdir": folder,
        "output": f"{recipe.name}-{'%A_%a' if array else '%j'}.out",
    }
    given = [f"--{name}={_quoted(str(v))}" for name, v in options.items() if v is not None]
    return [f"#SBATCH {option}" for option in [*given, "--requeue", *slurm.options]]


def _check_option(option: str, field: str) -> None:
    """Check that a line of options contains no option that the script sets itself.

    Raises:
        RecipeError: it contains such an option, in its short or (possibly abbreviated) long form.
    """
    for word in option.split():
        given = word.partition("=")[0].removeprefix("--")
        for name, (short, remedy) in OWN_OPTIONS.items():
            if word.startswith("--"):
                is_own = bool(given) and name.startswith(given)
            else:
                is_own = bool(short) and word.startswith(f"-{short}")
            if is_own:
                raise RecipeError(
                    f"{field} is {option!r}, but the job sets --{name} itself, and relies on it. "
                    f"Remove the option; {remedy}"
                )


def _check_environment(environment: Mapping[str, str]) -> None:
    """Check that no variable replaces an option that the job relies on.

    Raises:
        ClusterError: a variable replaces such an option.
    """
    for variable, name in OWN_VARIABLES.items():
        if variable in environment:
            raise ClusterError(
                f"{variable} is set, with which sbatch replaces the job's --{name}. Unset it; "
                f"{OWN_OPTIONS[name][1]}"
            )


def _check_folder(folder: Path) -> None:
    """Check that a job can run in a folder.

    Slurm expands patterns such as %j in the whole path of the log, including this folder.

    Raises:
        ClusterError: the path has a character that Slurm interprets even in quotes.
    """
    if found := re.search(r"[%\\\r\n]", str(folder)):
        raise ClusterError(
            f"The job would run and write its log in the current folder {str(folder)!r}, but Slurm "
            f"would interpret the {found[0]!r} in this path. Run the command in a folder whose "
            "path has no line end, % or backslash"
        )


def _quoted(value: str) -> str:
    """Quote a value so that `sbatch` reads it from an #SBATCH line unchanged.

    The value has no line break. Without quotes, a space ends the value and # begins a comment. A
    backslash escapes the next character (Slurm 22.05; `tests/lab/test_slurm.py` checks this with
    the installed Slurm).
    """
    if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def submit(script: str) -> str:
    """Submit a script with `sbatch`; return the job's id.

    Raises:
        ClusterError: `sbatch` is not installed here, or it refuses the job.
    """
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError(
            "There is no sbatch on this machine, so no job can be submitted from here. Run the "
            "command on a machine with Slurm, or leave out --submit and copy the script to such a "
            "machine"
        ) from error
    if done.returncode:
        raise ClusterError(f"Slurm refuses the job: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip().partition(";")[0]  # the cluster's name may follow
