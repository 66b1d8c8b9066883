"""Plan a run: collect everything that can be known about it before it trains.

    quick checks ──▶ size of the network ──▶ epoch ──▶ the cluster, if one is named
        ──▶ a metrics file or a few measured steps ──▶ hours

A failure of a stage becomes a problem in the plan, and the other stages still run.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cluster.errors import ClusterError
from cluster.node_check.verdicts import NodeCheckReport
from cluster.planning.cluster_facts import ClusterFacts, ask_cluster, check_this_machine
from cluster.planning.failure_cost import DEFAULT_RATE, FailureCost, failure_cost
from cluster.planning.problem import PlanProblem
from cluster.planning.quick_checks import Disk, disk_of, newest_step, quick_check
from cluster.planning.size import (
    count_parameters,
    memory_tier_bytes,
    recommended_memory_interval,
    size_of_state,
)
from cluster.planning.speed import Duration, Speed, duration, recorded_speed
from cluster.recipe import Recipe
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from foundation.errors import DataError
from foundation.wording import byte_count, counted
from model.errors import ModelError
from run_store.errors import RunError
from run_store.folder import RunFolder
from trainer.memory.state_size import StateSize
from trainer.process import host_memory

if TYPE_CHECKING:
    from cluster.planning.measurement import Measurement

# Maximum bytes of shards to read: about one second of work.
BYTES_READ = 64_000_000
_EXPECTED = (ClusterError, DataError, ModelError, RunError, OSError)


@dataclass(frozen=True)
class PlanOptions:
    """Options of a plan.

    Attributes:
        measured: whether a few steps may be trained to measure the speed.
        like: run whose metrics file provides the speed; None for the planned run.
        check_nodes: whether to check the hardware of the cluster's nodes, or of this machine.
        nodes: number of nodes for which failures are estimated; None for those of the cluster.
        failure_rate: failures of 1,000 nodes in a day; None for `DEFAULT_RATE`.
    """

    measured: bool = False
    like: RunFolder | None = None
    check_nodes: bool = False
    nodes: int | None = None
    failure_rate: float | None = None


@dataclass(frozen=True)
class MemoryCheckpoints:
    """Memory use of memory checkpoints, and a sensible interval.

    Attributes:
        every_steps: the recipe's interval; 0 for none.
        rank_bytes: bytes of `/dev/shm` for each rank of a node, on one node.
        recommended_every_steps: see `recommended_memory_interval`; None if the speed is unknown.
    """

    every_steps: int
    rank_bytes: int
    recommended_every_steps: int | None


@dataclass(frozen=True)
class Epoch:
    """Size of an epoch.

    Attributes:
        steps: number of optimizer steps, which need not be whole, because a step may extend over
            the end of an epoch.
        units: total of the loss's denominators, for example target tokens.
        exact: whether all windows were cut.
    """

    steps: float
    units: int
    exact: bool


@dataclass
class Plan:
    """Results of a plan; a value is None if it is unknown or was not needed.

    Attributes:
        steps_left: steps until `trainer.max_steps`.
        state: memory of one rank, with the recipe's maximum number of ranks.
    """

    recipe: Recipe
    run: RunFolder
    steps_left: int
    problems: list[PlanProblem]
    parameters: int | None = None
    frozen_parameters: int = 0
    state: StateSize | None = None
    disk: Disk | None = None
    epoch: Epoch | None = None
    cluster: ClusterFacts | None = None
    node_check: NodeCheckReport | None = None
    measurement: "Measurement | None" = None
    speed: Speed | None = None
    duration: Duration | None = None
    failures: FailureCost | None = None

    @property
    def trainable(self) -> bool:
        """True if no problem refuses the run."""
        return not any(problem.refuses for problem in self.problems)

    @property
    def cost(self) -> float | None:
        """Cost of the remaining steps; None without a price or an estimated duration."""
        price = self.recipe.cluster.price_per_rank_hour
        if price is None or self.duration is None:
            return None
        return self.duration.hours * self.duration.ranks * price

    @property
    def memory_checkpoints(self) -> MemoryCheckpoints | None:
        """Memory checkpoints of the run; None if the size of its state is unknown."""
        if self.state is None:
            return None
        step_seconds = self.speed.step_seconds if self.speed else None
        return MemoryCheckpoints(
            every_steps=self.recipe.checkpoints.memory_every_steps,
            rank_bytes=memory_tier_bytes(self.recipe, self.state),
            recommended_every_steps=(
                recommended_memory_interval(self.state, step_seconds) if step_seconds else None
            ),
        )

    def to_json(self) -> dict[str, Any]:
        tier, measured = self.memory_checkpoints, self.measurement
        return {
            "trainable": self.trainable,
            "run": self.run.location,
            "problems": [problem.to_json() for problem in self.problems],
            "parameters": self.parameters,
            "frozen_parameters": self.frozen_parameters,
            "rank_bytes": asdict(self.state) if self.state else None,
            "measured": asdict(measured) if measured else None,
            "checkpoints": asdict(self.disk) if self.disk else None,
            "memory_checkpoints": asdict(tier) if tier else None,
            "epoch": asdict(self.epoch) if self.epoch else None,
            "steps_left": self.steps_left,
            "speed": asdict(self.speed) if self.speed else None,
            "duration": asdict(self.duration) if self.duration else None,
            "cost": self.cost,
            "failures": asdict(self.failures) if self.failures else None,
            "cluster": self.cluster.to_json() if self.cluster else None,
            "node_check": self.node_check.to_json() if self.node_check else None,
        }


def make_plan(
    recipe: Recipe, run: RunFolder, wanted: PlanOptions, notice: Callable[[str], None]
) -> Plan:
    """Plan the run of a recipe.

    Args:
        recipe: recipe with absolute paths; `cluster.address` names the cluster to query.
        notice: called with a message before each slow stage.
    """
    checked, address = quick_check(recipe, run), recipe.cluster.address
    left = max(0, recipe.trainer.max_steps - newest_step(checked.stored))
    plan = Plan(recipe, run, left, list(checked.problems))
    if checked.dataset is not None:
        _estimate_sizes(plan, checked.stored, *checked.dataset)
    if address is not None and not any(p.about == "cluster" for p in plan.problems):
        _check_cluster(plan, address, wanted, notice)
    elif address is None and wanted.check_nodes:
        _check_this_machine(plan, notice)
    _estimate_speed(plan, checked.stored, wanted, checked.dataset, notice)
    if address is None:
        plan.problems += _measured_memory(plan)
    if plan.speed is not None:
        here = os.cpu_count() if address is None else None
        plan.duration = duration(recipe, plan.speed, left, here)
    nodes = wanted.nodes or (len(plan.cluster.nodes) if plan.cluster else 0)
    if nodes and plan.state:
        step_seconds = plan.speed.step_seconds if plan.speed else None
        plan.failures = failure_cost(
            nodes, wanted.failure_rate or DEFAULT_RATE, plan.state, recipe.checkpoints, step_seconds
        )
    return plan


def _estimate_sizes(plan: Plan, run: RunFolder, store: DatasetStore, manifest: Manifest) -> None:
    recipe = plan.recipe
    try:
        plan.parameters, plan.frozen_parameters = count_parameters(recipe, store, manifest)
        ranks = recipe.cluster.max_ranks
        plan.state = size_of_state(recipe, plan.parameters, ranks, plan.frozen_parameters)
        plan.disk = disk_of(recipe, run, plan.parameters, plan.frozen_parameters)
        plan.epoch = measure_epoch(recipe, store, manifest)
    except _EXPECTED as error:
        plan.problems.append(PlanProblem("dataset", str(error)))


def _check_cluster(
    plan: Plan,
    address: str,
    wanted: PlanOptions,
    notice: Callable[[str], None],
) -> None:
    try:
        plan.cluster, plan.node_check, found = ask_cluster(
            plan.recipe, plan.run, address, notice, check_nodes=wanted.check_nodes
        )
        plan.problems += found
    except ClusterError as error:
        plan.problems.append(PlanProblem("cluster", str(error)))


def _check_this_machine(plan: Plan, notice: Callable[[str], None]) -> None:
    """Check the hardware of this machine, unless it lacks the GPUs of the ranks."""
    if any(problem.about == "GPUs" for problem in plan.problems):
        return

    notice("checking the hardware of this machine")
    plan.node_check, found = check_this_machine(plan.recipe, plan.run.path)
    plan.problems += found


def _estimate_speed(
    plan: Plan,
    run: RunFolder,
    wanted: PlanOptions,
    dataset: tuple[DatasetStore, Manifest] | None,
    notice: Callable[[str], None],
) -> None:
    """Set the speed from a metrics file or, if allowed and possible, by measuring a few steps."""
    like = wanted.like or run
    try:
        if wanted.like:
            wanted.like.card()
        plan.speed = recorded_speed(like.metrics, f"the record of {like.location}")
    except _EXPECTED as error:
        plan.problems.append(PlanProblem("run", str(error)))
    fits_this_machine = not any(p.refuses and p.about in ("memory", "GPUs") for p in plan.problems)
    if plan.speed or not wanted.measured or dataset is None or not fits_this_machine:
        return
    from cluster.planning.measurement import can_measure, measure  # imports torch

    if reason := can_measure(plan.recipe):
        notice(f"the speed is not measured: {reason}")
        return
    notice("measuring a few steps of one rank here")
    try:
        plan.measurement = measure(plan.recipe, *dataset)
        plan.speed = plan.measurement.speed
    except _EXPECTED as error:
        plan.problems.append(PlanProblem("memory", str(error)))


def _measured_memory(plan: Plan) -> Iterator[PlanProblem]:
    """Check that this machine has memory for all ranks, from the measured memory of one rank."""
    config, measured = plan.recipe.cluster, plan.measurement
    if measured is None or plan.parameters is None or config.gpus_per_rank:
        return
    ranks = config.min_ranks
    alone, cut = (
        size_of_state(plan.recipe, plan.parameters, n, plan.frozen_parameters) for n in (1, ranks)
    )
    each = measured.peak_bytes - alone.on_device + cut.on_device + cut.on_host
    free = host_memory.available_bytes() + host_memory.resident_bytes()  # this process will end
    if ranks * each > free:
        yield PlanProblem(
            "memory",
            f"{counted(ranks, 'rank')} need {byte_count(each)} of memory each, as measured with "
            f"one rank, but this machine has {byte_count(free)} left. Use fewer ranks, join a "
            "cluster with --address, or lower batching.max_tokens_per_micro_batch in a new run",
        )


def measure_epoch(
    recipe: Recipe, store: DatasetStore, manifest: Manifest, bytes_read: int = BYTES_READ
) -> Epoch:
    """Cut windows of the first epoch, at least one, and return the size of an epoch.

    The windows are the same as those of the data workers. For a small dataset, all windows are cut,
    and the number of steps is exact. For a large dataset, only the first windows are cut, and the
    others are assumed to be similar.

    Args:
        bytes_read: limit on the bytes of shards to read, which determines the number of windows.

    Raises:
        DatasetFileError: a shard cannot be read.
    """
    reader = WindowReader(store, manifest, recipe.data_settings)
    first = reader.layout(0, 0)
    windows = first.windows_per_epoch
    size = int(manifest.shards.shard_bytes.sum())
    cut = max(1, min(windows, windows * bytes_read // max(1, size)))
    layouts = [first, *(reader.layout(0, window) for window in range(1, cut))]
    micro_batches = sum(len(layout.units) for layout in layouts)
    units = sum(int(layout.units.sum()) for layout in layouts)
    return Epoch(
        steps=micro_batches * windows / cut / recipe.batching.micro_batches_per_step,
        units=units * windows // cut,
        exact=cut == windows,
    )
