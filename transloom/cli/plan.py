"""Command `transloom plan`: estimate memory, disk space and time of a run, and find problems."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundation.terminal import note
from foundation.wording import byte_count, counted, span
from transloom.cli.options import (
    JsonOption,
    Overrides,
    RayAddressOption,
    RecipeArgument,
    RunOption,
    answer,
)

if TYPE_CHECKING:
    from cluster.node_check.verdicts import NodeCheckReport
    from cluster.planning.cluster_facts import ClusterFacts
    from cluster.planning.failure_cost import FailureCost
    from cluster.planning.plan import MemoryCheckpoints, Plan
    from cluster.planning.speed import Speed

LABEL = 13  # width of a row's label, in characters

Row = tuple[str, str]  # a row's label and its text


def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    run: RunOption = None,
    address: RayAddressOption = None,
    like: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="Folder of a run whose recorded speed is used for the estimate. Default: the "
            "planned run.",
        ),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="If no run has recorded the speed, measure it by training one rank for a few "
            "steps in this process. This takes ten seconds or more.",
        ),
    ] = False,
    check_nodes: Annotated[
        bool,
        typer.Option(
            "--check-nodes",
            help="Also check all nodes with free capacity, for up to 20 s: matrix products, "
            "storage, clocks and network. Without --address, check this machine.",
        ),
    ] = False,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of nodes for which the cost of failures is estimated. Default: those of "
            "the cluster.",
        ),
    ] = None,
    failure_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1e6,
            help="Expected failures of 1,000 nodes in a day. Default: as published for Meta's "
            "cluster RSC-1.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate memory, disk space and hours of a run, and list problems that would stop it.

    The exit code is 0 if the run can be trained, else 1. Each problem is a line with its remedy.
    `transloom train` and `transloom submit` start with the quick checks of this command.

    Examples:

      transloom plan phrasebook --measure

      transloom plan multi30k-ende cluster.ranks=2 --address 10.0.0.1:6379 --run /shared/runs/m30k

      transloom plan vaswani-base --from runs/vaswani-base --json

      transloom plan vaswani-base --nodes 128
    """
    from cluster.planning.plan import PlanOptions, make_plan
    from run_store.folder import RunFolder
    from transloom.cli.train_run import recipe_and_run

    loaded, folder = recipe_and_run(recipe, overrides or [], run, address)
    speed_run = RunFolder(like) if like else None
    options = PlanOptions(measure, speed_run, check_nodes, nodes, failure_rate)
    made = make_plan(loaded, folder, options, note)
    answer(made.to_json(), as_json, plan_text(made), failed=not made.trainable)


def plan_text(plan: "Plan") -> str:
    """Return the plan as lines of text, with the verdict in the last line."""
    from transloom.cli.train_run import title_of

    rows = [
        *_size_rows(plan),
        *_time_rows(plan),
        *(_failure_rows(plan.failures, plan.speed) if plan.failures else ()),
        *(_cluster_rows(plan.cluster) if plan.cluster else ()),
    ]
    lines = [
        title_of(plan.recipe, plan.run),
        *(f"{label:<{LABEL}}{text}" for label, text in rows),
        *(_node_check_lines(plan.node_check) if plan.node_check else ()),
        *(f"{'problem' if p.refuses else 'note'}: {p.text}" for p in plan.problems),
    ]
    refusing = sum(problem.refuses for problem in plan.problems)
    verdict = "The run can be trained."
    if refusing:
        verdict = f"The run cannot be trained: {counted(refusing, 'problem')}."
    return "\n".join([*lines, verdict])


def _size_rows(plan: "Plan") -> Iterator[Row]:
    if plan.parameters is not None:
        frozen = plan.frozen_parameters
        yield (
            "parameters",
            f"{plan.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else ""),
        )
    if size := plan.state:
        parts = {
            "weights": size.weights,
            "their fp32 copy": size.master,
            "gradients": size.gradients,
            "sums of gradients": size.bucket,
            "optimizer moments": size.moments,
            "average of the weights": size.average,
        }
        shown = ", ".join(f"{name} {byte_count(n)}" for name, n in parts.items() if n)
        ranks = counted(plan.recipe.cluster.max_ranks, "rank")
        frozen_weights = f" and {byte_count(size.frozen)} of frozen weights" if size.frozen else ""
        yield (
            "a rank",
            f"{byte_count(size.on_device)} at most, with {ranks}: {shown}; in host memory "
            f"{byte_count(size.checkpoint_copy)} for a copy of its part of a checkpoint"
            f"{frozen_weights}",
        )
    if measured := plan.measurement:
        yield (
            "measured",
            f"{byte_count(measured.peak_bytes)} at most by one rank on {measured.device}, with its "
            "state, gradients and activations",
        )
    if disk := plan.disk:
        there = f", {disk.there} exist" if disk.there else ""
        yield (
            "checkpoints",
            f"{byte_count(disk.each)} each{there}, up to {disk.wanted} more at the same time "
            f"({byte_count(disk.wanted * disk.each)}); free: {byte_count(disk.free)}",
        )
    if plan.memory_checkpoints and (text := _memory_checkpoints_text(plan.memory_checkpoints)):
        yield "in memory", text


def _memory_checkpoints_text(tier: "MemoryCheckpoints") -> str:
    """Return the interval and size of memory checkpoints, or an interval to recommend."""
    advice = tier.recommended_every_steps
    if tier.every_steps:
        size = byte_count(tier.rank_bytes)
        text = f"every {_steps(tier.every_steps)}, {size} of /dev/shm for each rank, twice as much "
        text += "on several nodes"
        text += f"; an interval of {_steps(advice)} or more costs at most 2%" if advice else ""
        return text
    if advice:
        return f"none; checkpoints.memory_every_steps={advice} or more costs at most 2% of the time"
    return ""


def _time_rows(plan: "Plan") -> Iterator[Row]:
    unit = plan.recipe.kind.loss_unit
    if epoch := plan.epoch:
        about = "" if epoch.exact else "about "
        yield "an epoch", f"{about}{_steps(epoch.steps)}, {epoch.units:,} {unit}s"
    if speed := plan.speed:
        of = f"{counted(speed.steps, 'step')}, {counted(speed.ranks, 'rank')}"
        yield (
            "speed",
            f"{speed.units_per_second:,.0f} {unit}s/s, {speed.step_seconds:.3g} s a step: "
            f"{speed.origin} ({of})",
        )
    if taken := plan.duration:
        how = " without validations and checkpoints" if not (speed and speed.goodput) else ""
        if taken.at_best and plan.steps_left:
            how += _speed_assumption(plan)
        yield "time", f"{span(3600 * taken.hours)} for {counted(plan.steps_left, 'step')}{how}"
    if plan.cost is not None:
        yield "cost", f"{plan.cost:,.2f} by cluster.price_per_rank_hour"


def _failure_rows(cost: "FailureCost", speed: "Speed | None") -> Iterator[Row]:
    rate = f"{cost.losses_per_day:.3g} a day on {counted(cost.nodes, 'node')}"
    yield "failures", f"{rate}, at {cost.per_1000_node_days:g} a day on 1,000 nodes"
    for name, tier in (("on disk", cost.disk), ("in memory", cost.memory)):
        best = tier.best_interval_seconds
        count = f"{_steps(max(1, round(best / speed.step_seconds)))}, " if speed else ""
        text = f"checkpoints {name}: best every {count}{span(best)}, {tier.best_effective:.2%} of "
        text += "the time is then effective"
        if tier.effective is not None and tier.interval_seconds is not None:
            text += f"; {tier.effective:.2%} with those of the recipe, every "
            text += span(tier.interval_seconds)
        yield "failures", text


def _cluster_rows(cluster: "ClusterFacts") -> Iterator[Row]:
    from cluster.planning.cluster_facts import holder_text, resources_text

    for node in cluster.nodes:
        resources = ", ".join(
            f"{node.free.get(name, 0):g} of {node.total[name]:g} {name} free"
            for name in ("CPU", "GPU")
            if node.total.get(name)
        )
        leaving = "; about to drain" if node.leaves_at is not None else ""
        yield "node", f"{node.name}: {resources or 'no CPUs'}{leaving}"
    for holder in cluster.holders:
        yield "held", f"{resources_text(holder)} by {holder_text(holder)}"
    yield "capacity", f"{counted(cluster.room, 'rank')} now, {cluster.room_at_all} in all"
    if cluster.target is not None:
        share = counted(cluster.target, "rank") if cluster.target else "none, it would wait"
        yield "share", f"{share}, as a new job of yours with the default priority"


def _node_check_lines(report: "NodeCheckReport") -> list[str]:
    return [
        f"{'node check':<{LABEL}}{report.summary()}",
        *(f"  {line}" for line in report.table()),
    ]


def _speed_assumption(plan: "Plan") -> str:
    """Return a clause about the assumed speed with the planned number of ranks.

    The clause compares this speed with the speed that was measured with another number of ranks.
    """
    speed, taken = plan.speed, plan.duration
    assert speed is not None
    assert taken is not None
    measured_hours = plan.steps_left * speed.step_seconds / 3600 / (speed.goodput or 1.0)
    share = f"{measured_hours / taken.hours:.3g}"
    times = {"0.5": "half as fast", "1": "as fast", "2": "twice as fast"}
    are = "is" if taken.ranks == 1 else "are"
    return (
        f", if {counted(taken.ranks, 'rank')} {are} {times.get(share, f'{share} times as fast')} "
        f"as {speed.ranks}"
    )


def _steps(count: float) -> str:
    """Return a number of steps in words, with one decimal place if it is not a whole number."""
    rounded = f"{count:,.1f}".removesuffix(".0")
    return f"{rounded} step" if rounded == "1" else f"{rounded} steps"
