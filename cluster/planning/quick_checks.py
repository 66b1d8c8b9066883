"""The quick part of a plan: what can be told in a moment, without Ray, torch or any batch.

    recipe, dataset, run ──check_run──▶ do they belong together?
    the run's folder     ──▶ can it be written, and is there room for its checkpoints?
    the cluster          ──▶ does its head answer, if there is one to join?
    this machine         ──▶ has it the GPUs and the memory that the ranks need at least?
    packages             ──▶ are they those that transloom was made for?

`transloom train` and `transloom submit` ask this first, so that a mistake costs a second and not a
job. On a cluster that is joined, room is not asked for here: the run waits for it, and says so.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.planning.problem import PlanProblem
from cluster.planning.size import min_parameters, size_of_checkpoint, size_of_state
from cluster.planning.versions import package_problems
from cluster.ray.folder_access import existing_part, write_problem
from cluster.recipe import Recipe
from cluster.supervision.run_checks import check_run
from data_pipeline.config.corpus import is_remote
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from foundation.errors import DataError
from foundation.wording import counted
from model.errors import ModelError
from trainer.checkpoints.format import list_checkpoints, read_header, step_of
from trainer.errors import CheckpointError, CheckpointFormatError, RunMismatchError, TrainerError
from trainer.memory import host_memory
from trainer.runs.folder import RunFolder


@dataclass(frozen=True)
class QuickCheck:
    """What was found.

    Attributes:
        problems: what is wrong, the worst first.
        dataset: the recipe's dataset, if it is the right one; what else is asked of it is in the
            manifest.
    """

    problems: tuple[PlanProblem, ...]
    dataset: tuple[DatasetStore, Manifest] | None

    def raise_refusal(self) -> None:
        """Raise the first problem that refuses the run, if there is one.

        Raises:
            ClusterError, DataError, ModelError, TrainerError: what training would end with.
        """
        for problem in self.problems:
            if problem.refuses:
                raise problem.error or ClusterError(problem.text)

    def require(self) -> tuple[DatasetStore, Manifest]:
        """The dataset of a run that is trained here; raises what `raise_refusal` raises."""
        self.raise_refusal()
        assert self.dataset is not None, "a dataset that is not there is a problem"
        return self.dataset

    @property
    def notices(self) -> list[str]:
        """What is worth knowing and refuses nothing."""
        return [problem.text for problem in self.problems if not problem.refuses]


def quick_check(recipe: Recipe, run: RunFolder, *, trains_here: bool = True) -> QuickCheck:
    """Look for mistakes; nothing is written.

    Args:
        recipe: with absolute paths.
        trains_here: whether this machine sees dataset and run folder where the ranks will. A client
            that submits a job may not: then a dataset or folder that is not here is no problem, and
            no server is asked, for which the nodes alone may have the credentials.
    """
    dataset, problems = _dataset(recipe, run, trains_here)
    problems += run_folder_problems(run) if trains_here or run.path.exists() else []
    if dataset is not None:
        parameters = min_parameters(recipe, dataset[1])
        if trains_here or run.path.exists():
            problems += disk_problems(recipe, run, parameters)
        if trains_here and recipe.cluster.address is None:
            problems += list(machine_problems(recipe, parameters))
    if trains_here:
        problems += package_problems()
        problems += cluster_problems(recipe, run)
    return QuickCheck(tuple(sorted(problems, key=lambda p: not p.refuses)), dataset)


def _dataset(
    recipe: Recipe, run: RunFolder, trains_here: bool
) -> tuple[tuple[DatasetStore, Manifest] | None, list[PlanProblem]]:
    location = recipe.data.dataset
    if not trains_here and (is_remote(location) or not Path(location).exists()):
        return None, []
    try:
        return check_run(recipe, run), []
    except (ClusterError, DataError, ModelError, TrainerError) as error:
        of_run = isinstance(error, (RunMismatchError, CheckpointError, CheckpointFormatError))
        return None, [PlanProblem("run" if of_run else "dataset", str(error), error=error)]


def run_folder_problems(run: RunFolder) -> list[PlanProblem]:
    """Return why the run's folder cannot be made or written."""
    problem = write_problem(run.path)
    if problem is None:
        return []
    text = f"The run's folder {run.path} cannot be written: {problem}"
    return [PlanProblem("run", f"{text}. Name another folder with --run PATH")]


def cluster_problems(recipe: Recipe, run: RunFolder) -> list[PlanProblem]:
    """Return why the cluster cannot be joined, unless the run has all its steps already.

    Asked before the run is owned: an address that is wrong leaves no trace of a run.
    """
    checkpoints = list_checkpoints(run.checkpoints)
    over = bool(checkpoints) and step_of(checkpoints[-1]) >= recipe.trainer.max_steps
    if recipe.cluster.address is None or over:
        return []
    from cluster.ray.session import find_head  # imports Ray

    try:
        find_head(recipe.cluster.address)
    except ClusterError as error:
        return [PlanProblem("cluster", str(error), error=error)]
    return []


@dataclass(frozen=True)
class Disk:
    """The disk of a run's checkpoints.

    Attributes:
        each: bytes of one checkpoint.
        there: checkpoints that the run has.
        wanted: the most that it will have besides, the one that is being written included.
        free: bytes that are free.
    """

    each: int
    there: int
    wanted: int
    free: int


def disk_of(
    recipe: Recipe, run: RunFolder, parameters: int | None, frozen: int | None = None
) -> Disk | None:
    """How the checkpoints of a run fit on its disk; None if their size cannot be told.

    Args:
        parameters: of the network, or fewer; a checkpoint that is there tells better.
        frozen: how many of them are not trained, if the network was asked.
    """
    config, steps = recipe.checkpoints, recipe.trainer.max_steps
    paths = list_checkpoints(run.checkpoints)
    each = _bytes_of(paths[-1]) if paths else None
    if each is None:
        if parameters is None:
            return None
        each = size_of_checkpoint(recipe, parameters, frozen)
    begun = step_of(paths[-1]) if paths else 0
    to_come = -(-max(0, steps - begun) // config.every_steps)
    stay = config.keep_last + config.keep_best + 1
    if config.keep_every_steps:
        stay += steps // config.keep_every_steps
    wanted = min(max(1, stay - len(paths)), to_come)
    free = shutil.disk_usage(existing_part(run.path)).free
    return Disk(each, len(paths), wanted, free)


def _bytes_of(checkpoint: Path) -> int | None:
    try:
        return sum(file.bytes for file in read_header(checkpoint).files) or None
    except (CheckpointError, CheckpointFormatError):  # named when the run goes on
        return None


def disk_problems(recipe: Recipe, run: RunFolder, parameters: int | None) -> list[PlanProblem]:
    """Whether there is room for the checkpoints: it refuses where not even one fits."""
    disk = disk_of(recipe, run, parameters)
    if disk is None or disk.free >= disk.wanted * disk.each:
        return []
    where = f"the disk of {run.path} has {gigabytes(disk.free)} free"
    remedy = "Free some, or name a folder on another disk with --run PATH"
    if disk.free < disk.each:
        text = f"A checkpoint takes {gigabytes(disk.each)}, and {where}: none can be written"
        return [PlanProblem("disk", f"{text}. {remedy}")]
    text = (
        f"{counted(disk.wanted, 'checkpoint')} of {gigabytes(disk.each)} are to lie there at once, "
        f"in all {gigabytes(disk.wanted * disk.each)}, and {where}"
    )
    return [PlanProblem("disk", f"{text}. {remedy}, or keep fewer (checkpoints)", refuses=False)]


def machine_problems(recipe: Recipe, parameters: int | None) -> Iterator[PlanProblem]:
    """What this machine lacks for the least number of ranks, if they run here."""
    config = recipe.cluster
    if config.gpus_per_rank:
        from cluster.ray.private import machine_gpus  # imports Ray

        if (found := machine_gpus()) < config.least_gpus:
            yield PlanProblem(
                "GPUs",
                f"The run needs {counted(config.least_gpus, 'GPU')}, and Ray finds {found} here. "
                "Lower cluster.ranks, set cluster.gpus_per_rank to 0, or join a cluster with "
                "--address",
            )
    if parameters is None:
        return
    ranks = config.min_ranks
    size = size_of_state(recipe, parameters, ranks)
    on_host = size.on_host + (0 if config.gpus_per_rank else size.on_device)
    free = host_memory.available_bytes()
    if ranks * on_host > free:
        yield PlanProblem(
            "memory",
            f"{counted(ranks, 'rank')} of {counted(parameters, 'parameter')} under ZeRO "
            f"{recipe.engine.zero_stage} take {gigabytes(ranks * on_host)} at least before the "
            f"first batch, and this machine has {gigabytes(free)} left. Take fewer ranks, a higher "
            "engine.zero_stage, a smaller model, or a cluster with --address",
        )


def gigabytes(amount: int) -> str:
    """Bytes for a person: 0.76 GB, 12.4 GB, 8.2 MB."""
    if amount < 100_000_000:
        return f"{amount / 1e6:.1f} MB"
    return f"{amount / 1e9:.2f} GB" if amount < 10_000_000_000 else f"{amount / 1e9:.1f} GB"
