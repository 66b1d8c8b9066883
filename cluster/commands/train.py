"""`transloom train`: resolve recipe and run folder, then train here or on a cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import RecipeError
from cluster.planning.quick import quick_check
from cluster.recipe import (
    Recipe,
    find_recipe,
    load_recipe,
    run_name,
    with_absolute_paths,
)
from cluster.supervision.supervisor import supervise
from cluster.terminal import Terminal
from cluster.views.display import LoggedAudience, audience_for
from data_pipeline.wording import counted
from trainer.checkpoints.format import list_checkpoints, step_of
from trainer.runs import RUNS
from trainer.runs.folder import RunFolder
from trainer.step_range import StepRange, profile_folder
from trainer.supervision import Outcome
from trainer.tracking.metrics import read_backwards
from trainer.tracking.records import ValidationLine

MOST_PROFILED_STEPS = 50


@dataclass(frozen=True)
class TrainResult:
    """How a run stands after `transloom train`."""

    outcome: Outcome
    run: Path
    step: int
    checkpoint: Path | None
    validation: ValidationLine | None
    profile: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "run": str(self.run),
            "step": self.step,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "validation": self._scores(),
            "profile": str(self.profile) if self.profile else None,
        }

    def _scores(self) -> dict[str, Any] | None:
        if self.validation is None:
            return None
        return self.validation.model_dump(mode="json", include={"step", "scores", "seconds"})

    def text(self) -> str:
        if self.profile is None:
            return self._outcome_text()
        return f"{self._outcome_text()} The profile lies in {self.profile}."

    def _outcome_text(self) -> str:
        if self.outcome == "preempted":
            if self.checkpoint is None:
                return f"Stopped before {self.run} had a checkpoint; the same command starts it."
            return (
                f"Stopped. The newest checkpoint of {self.run} is of step {self.step}; the same "
                "command continues from there."
            )
        return f"Finished at step {self.step}. The run lies in {self.run}."


def train_run(
    recipe: str,
    overrides: list[str],
    *,
    run: Path | None,
    address: str | None,
    inline: bool,
    console: Terminal,
    profile: StepRange | None = None,
    strict: bool = False,
) -> TrainResult:
    """Train or continue the run of a recipe; see `transloom train --help`."""
    path = find_recipe(recipe)
    if address is not None:
        overrides = [*overrides, f"cluster.address={address}"]
    if inline:
        overrides = [*overrides, "cluster.ranks=1"]
    loaded = load_recipe(path, overrides)
    if inline and loaded.cluster.address is not None:
        raise RecipeError(
            f"--inline trains in this process, but cluster.address is {loaded.cluster.address}: "
            "leave --inline out, or say cluster.address=null"
        )
    folder = RunFolder(run or RUNS / run_name(path, overrides))
    loaded = with_absolute_paths(loaded)
    checked = quick_check(loaded, folder)
    store, manifest = checked.require()
    if profile:
        _check_profile(profile, loaded, folder)
    with audience_for(
        console, title_of(loaded, folder), loaded.trainer.max_steps, folder
    ) as display:
        audience = LoggedAudience(display, folder)
        for notice in checked.notices:
            display.notice(notice)
        if inline:
            from cluster.supervision.inline import train_inline

            outcome = train_inline(loaded, folder, store, manifest, audience, profile)
        else:
            outcome = supervise(loaded, folder, store, manifest, audience, profile, strict)
    checkpoints = list_checkpoints(folder.checkpoints)
    newest = checkpoints[-1] if checkpoints else None
    lines = read_backwards(folder.metrics)
    traces = profile_folder(folder, profile) if profile else None
    return TrainResult(
        outcome=outcome,
        run=folder.path,
        step=step_of(newest) if newest else 0,
        checkpoint=newest,
        validation=next((line for line in lines if isinstance(line, ValidationLine)), None),
        profile=traces if traces and traces.exists() else None,
    )


def _check_profile(steps: StepRange, recipe: Recipe, run: RunFolder) -> None:
    """Check that these steps will be trained, or were reached by an earlier start."""
    longest = recipe.trainer.max_steps
    if steps.last > longest:
        raise RecipeError(
            f"--profile {steps} ends after step {longest}, which is trainer.max_steps: name steps "
            "up to there, or raise it"
        )
    if steps.last - steps.first >= MOST_PROFILED_STEPS:
        raise RecipeError(
            f"--profile {steps} names {counted(steps.last - steps.first + 1, 'step')}, and so long "
            f"a trace is too large to be looked at: name at most {MOST_PROFILED_STEPS}"
        )
    checkpoints = list_checkpoints(run.checkpoints)
    begun = step_of(checkpoints[-1]) if checkpoints else 0
    if steps.first <= begun and not profile_folder(run, steps).exists():
        raise RecipeError(
            f"--profile {steps} begins at step {steps.first}, but {run.path} goes on from the "
            f"checkpoint of step {begun}: name steps after that, up to trainer.max_steps, which is "
            f"{longest}"
        )


def title_of(recipe: Recipe, run: RunFolder) -> str:
    """One line on what is being trained, and how."""
    engine, cluster = recipe.engine, recipe.cluster
    device = "GPU" if cluster.gpus_per_rank else "CPU"
    low, high = cluster.min_ranks, cluster.max_ranks
    ranks = ("" if low == high else f"{low} to ") + counted(high, f"{device} rank")
    return f"{run.path}: {recipe.model}, {ranks}, ZeRO {engine.zero_stage}, {engine.precision}"
