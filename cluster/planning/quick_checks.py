"""Run the quick part of a plan, without Ray, torch or any batch.

    recipe, dataset, run ──check_run──▶ do they belong together?
    the run folder       ──▶ is it writable, with enough space for the checkpoints?
    the cluster          ──▶ does its head answer, if a cluster is joined?
    this machine         ──▶ does it have the GPUs and the memory for the minimum of ranks?
    packages             ──▶ do they have the versions that transloom requires?

`transloom train` and `transloom submit` run these checks first, so that a mistake costs a second
instead of a job. The checks do not cover the capacity of a joined cluster, because the run waits
for capacity and reports the wait.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.planning.problem import PlanProblem
from cluster.planning.size import (
    memory_tier_bytes,
    min_parameters,
    size_of_checkpoint,
    size_of_state,
)
from cluster.planning.versions import package_problems
from cluster.ray.folder_access import existing_part, write_problem
from cluster.recipe import Recipe
from cluster.supervision.run_checks import check_run
from data_pipeline.config.corpus import is_remote
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from foundation.errors import DataError
from foundation.wording import byte_count, counted
from model.errors import ModelError
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.checkpoints.format import read_header
from run_store.checkpoints.memory_folder import SHARED_MEMORY
from run_store.errors import CheckpointError, CheckpointFormatError, RunError, RunMismatchError
from run_store.folder import RunFolder
from run_store.remote.local_copy import stored_run
from trainer.process import host_memory


@dataclass(frozen=True)
class QuickCheck:
    """Result of the quick checks.

    Attributes:
        problems: the problems; those that refuse the run come first.
        dataset: the recipe's dataset and its manifest; None if the dataset has a problem or is not
            checked.
        stored: the run in its current state, read-only: its folder, or a view of a run in an object
            store.
    """

    problems: tuple[PlanProblem, ...]
    dataset: tuple[DatasetStore, Manifest] | None
    stored: RunFolder

    def raise_refusal(self) -> None:
        """Raise the first problem that refuses the run, if there is one.

        Raises:
            ClusterError, DataError, ModelError, RunError: the error that training would raise.
        """
        for problem in self.problems:
            if problem.refuses:
                raise problem.error or ClusterError(problem.text)

    def require(self) -> tuple[DatasetStore, Manifest]:
        """Raise the first refusal, or return the dataset for a run that trains on this machine.

        Raises:
            ClusterError, DataError, ModelError, RunError: see `raise_refusal`.
        """
        self.raise_refusal()
        assert self.dataset is not None, "a missing dataset is a problem that refuses the run"
        return self.dataset

    @property
    def notices(self) -> list[str]:
        """Texts of the problems that do not refuse the run."""
        return [problem.text for problem in self.problems if not problem.refuses]


def quick_check(recipe: Recipe, run: RunFolder, *, trains_here: bool = True) -> QuickCheck:
    """Check for mistakes without writing anything.

    Args:
        recipe: recipe with absolute paths.
        trains_here: whether this machine sees the same dataset and run folder as the ranks. A
            client that submits a job may not see them. For such a client, a missing local dataset
            or folder is not a problem. No storage server is queried either, because only the nodes
            may have the credentials.
    """
    if run.url and trains_here:
        try:
            run = _stored_run(run, run.url)
        except (OSError, RunError) as error:
            refusal = error if isinstance(error, RunError) else None
            return QuickCheck((PlanProblem("run", str(error), error=refusal),), None, run)
    dataset, problems = _dataset(recipe, run, trains_here)
    sees_run = trains_here or (run.url is None and run.path.exists())
    problems += run_folder_problems(run) if sees_run else []
    if dataset is not None:
        parameters = min_parameters(recipe, dataset[1])
        if sees_run:
            problems += disk_problems(recipe, run, parameters)
        if trains_here and recipe.cluster.address is None:
            problems += machine_problems(recipe, parameters)
    if trains_here:
        problems += package_problems()
        problems += cluster_problems(recipe, run)
    return QuickCheck(tuple(sorted(problems, key=lambda p: not p.refuses)), dataset, run)


def _stored_run(run: RunFolder, url: str) -> RunFolder:
    """Return the run in an object store.

    Raises:
        OSError, RunError: the store cannot hold runs, or the run cannot be read.
    """
    from data_pipeline.storage.object_store import ObjectStore  # imports obstore
    from run_store.remote.store_check import probe_store

    probe_store(ObjectStore(url))
    return stored_run(run)


def _dataset(
    recipe: Recipe, run: RunFolder, trains_here: bool
) -> tuple[tuple[DatasetStore, Manifest] | None, list[PlanProblem]]:
    location = recipe.data.dataset
    if not trains_here and (is_remote(location) or not Path(location).exists()):
        return None, []
    try:
        found = check_run(recipe, run)
        return found, [PlanProblem("dataset", text, refuses=False) for text in found[1].leaks]
    except (ClusterError, DataError, ModelError, RunError) as error:
        of_run = isinstance(error, (RunMismatchError, CheckpointError, CheckpointFormatError))
        return None, [PlanProblem("run" if of_run else "dataset", str(error), error=error)]


def run_folder_problems(run: RunFolder) -> Iterator[PlanProblem]:
    """Yield a problem if the run folder cannot be created or written."""
    if problem := write_problem(run.path):
        text = f"The run's folder {run.path} cannot be written: {problem}"
        yield PlanProblem("run", f"{text}. Name another folder with --run PATH")


def cluster_problems(recipe: Recipe, run: RunFolder) -> Iterator[PlanProblem]:
    """Yield a problem if the cluster cannot be joined and the run still has steps to train.

    This check runs before the process acquires the run, so a wrong address leaves the run
    unchanged.
    """
    is_over = newest_step(run) >= recipe.trainer.max_steps
    if recipe.cluster.address is None or is_over:
        return
    from cluster.ray.session import find_head  # imports Ray

    try:
        find_head(recipe.cluster.address)
    except ClusterError as error:
        yield PlanProblem("cluster", str(error), error=error)


def newest_step(run: RunFolder) -> int:
    """Return the step of a run's newest checkpoint, or 0 if it has none."""
    return max(map(step_of, list_checkpoints(run.checkpoints)), default=0)


@dataclass(frozen=True)
class Disk:
    """Disk use of a run's checkpoints.

    Attributes:
        each: bytes of one checkpoint.
        there: number of existing checkpoints.
        wanted: maximum number of additional checkpoints, including one being written.
        free: free bytes.
    """

    each: int
    there: int
    wanted: int
    free: int


def disk_of(
    recipe: Recipe, run: RunFolder, parameters: int | None, frozen: int | None = None
) -> Disk | None:
    """Estimate the disk use of a run's checkpoints, or return None if their size is unknown.

    Args:
        parameters: number of the network's parameters, or a lower bound. The size of an existing
            checkpoint takes precedence.
        frozen: number of parameters that are not trained, or None if it is unknown.
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
    except (CheckpointError, CheckpointFormatError):  # damage is reported on resuming
        return None


def disk_problems(recipe: Recipe, run: RunFolder, parameters: int | None) -> list[PlanProblem]:
    """Check the disk space for checkpoints; refuse the run if not even one checkpoint fits."""
    disk = disk_of(recipe, run, parameters)
    # If the run has a URL, a node's disk holds only what is being uploaded.
    if disk is None or run.url or disk.free >= disk.wanted * disk.each:
        return []
    where = f"the disk of {run.path} has {byte_count(disk.free)} free"
    remedy = "Free some space, or name a folder on another disk with --run PATH"
    if disk.free < disk.each:
        text = f"A checkpoint takes {byte_count(disk.each)}, but {where}, so none can be written"
        return [PlanProblem("disk", f"{text}. {remedy}")]
    text = (
        f"The run will keep up to {counted(disk.wanted, 'more checkpoint')} of "
        f"{byte_count(disk.each)}, in total {byte_count(disk.wanted * disk.each)}, but {where}"
    )
    fewer = "or keep fewer checkpoints (recipe section checkpoints)"
    return [PlanProblem("disk", f"{text}. {remedy}, {fewer}", refuses=False)]


def machine_problems(recipe: Recipe, parameters: int | None) -> Iterator[PlanProblem]:
    """Yield a problem for each resource that this machine lacks for the minimum number of ranks."""
    config = recipe.cluster
    if config.gpus_per_rank:
        from cluster.ray.private import machine_gpus  # imports Ray

        if (found := machine_gpus()) < config.least_gpus:
            yield PlanProblem(
                "GPUs",
                f"The run needs {counted(config.least_gpus, 'GPU')}, but Ray finds {found} here. "
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
            f"{recipe.engine.zero_stage} take at least {byte_count(ranks * on_host)} before the "
            f"first batch, and this machine has {byte_count(free)} left. Use fewer ranks, a higher "
            "engine.zero_stage, a smaller model, or a cluster with --address",
        )
    tier = ranks * memory_tier_bytes(recipe, size)
    if tier and (space := min(shared_memory_bytes(), free - ranks * on_host)) < tier:
        yield PlanProblem(
            "memory",
            f"Memory checkpoints need {byte_count(tier)} of {SHARED_MEMORY}, but only "
            f"{byte_count(max(0, space))} are free: the run would train without them. Free memory, "
            "enlarge /dev/shm, or set checkpoints.memory_every_steps to 0",
            refuses=False,
        )


def shared_memory_bytes() -> int:
    """Return the free bytes of this machine's `/dev/shm`, or 0 if there is none."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0
