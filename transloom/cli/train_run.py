"""Work of `transloom train`: load the recipe, choose the run's folder, and train the run."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import RecipeError
from cluster.notify.run_events import NotifyingListener
from cluster.planning.quick_checks import newest_step, quick_check
from cluster.recipe import Recipe, find_recipe, load_recipe, run_name, with_absolute_paths
from cluster.supervision.run_listener import RunListener
from cluster.supervision.supervisor import SupervisionOptions, supervise
from foundation.terminal import Terminal
from foundation.wording import counted
from run_store import RUNS
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.folder import RunFolder, StepRange, profile_folder
from run_store.record.metrics_file import read_backwards
from run_store.record.metrics_lines import ValidationLine
from run_store.record.run_status_model import LossForm
from trainer.job.rank_job import Outcome
from transloom.cli.next_steps import next_commands
from transloom.observe.terminal.display import LoggingListener, listener_for

MAX_PROFILED_STEPS = 50


@dataclass(frozen=True)
class TrainResult:
    """State of a run after `transloom train`.

    Attributes:
        run: the folder in which the run was trained.
        location: the run as users name it, a folder or a URL.
        began_at: step of the newest checkpoint when the command started; 0 if there was none.
        step: step of the newest checkpoint when the command ended; 0 if there was none.
    """

    outcome: Outcome
    run: Path
    location: str
    recipe: Recipe
    began_at: int
    step: int
    checkpoint: Path | None
    validation: ValidationLine | None
    profile: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "run": self.location,
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
        """Return the outcome in words, with commands to try next if the run has finished."""
        text = self.outcome_text()
        if self.profile is not None:
            text += f" The profile is in {self.profile}."
        if self.outcome == "finished":
            samples = self.validation.samples if self.validation else []
            source = samples[0].source if samples else None
            commands = next_commands(self.location, self.recipe, source)
            text += "\n\nNext:\n" + "\n".join(f"  {command}" for command in commands.values())
        return text

    def outcome_text(self) -> str:
        """Return one or two sentences that say how the run ended."""
        if self.outcome == "stopped":
            if self.checkpoint is None:
                return (
                    f"Stopped before {self.location} had a checkpoint; the same command starts "
                    "over."
                )
            return (
                f"Stopped. The newest checkpoint of {self.location} is of step {self.step}; the "
                "same command continues from that step."
            )
        if self.began_at == self.step:
            return self._nothing_left_text()
        return f"Finished at step {self.step}. The run is in {self.location}."

    def _nothing_left_text(self) -> str:
        wanted = self.recipe.trainer.max_steps
        if self.step < wanted:
            return (
                f"Nothing left to train: {self.location} stopped early at step {self.step}. Raise "
                "trainer.early_stopping.patience to continue it."
            )
        return (
            f"Nothing left to train: {self.location} is already at step {self.step}, and "
            f"trainer.max_steps is {wanted}. Raise trainer.max_steps to continue it."
        )


@dataclass(frozen=True)
class TrainOptions:
    """Options of `transloom train`; its `--help` describes them."""

    run: Path | str | None = None
    address: str | None = None
    inline: bool = False
    profile: StepRange | None = None
    strict: bool = False


def train_run(
    recipe: str, overrides: list[str], options: TrainOptions, console: Terminal
) -> TrainResult:
    """Train the run of a recipe, or continue it, and return its state afterwards."""
    inline, profile = options.inline, options.profile
    if inline:
        overrides = [*overrides, "cluster.ranks=1"]
    loaded, folder = recipe_and_run(recipe, overrides, options.run, options.address)
    if inline and loaded.cluster.address is not None:
        raise RecipeError(
            f"--inline trains in this process, but cluster.address is {loaded.cluster.address}: "
            "leave --inline out, or set cluster.address=null"
        )
    checked = quick_check(loaded, folder)
    store, manifest = checked.require()
    began_at = newest_step(checked.stored)
    if profile:
        _check_profile(profile, loaded, checked.stored)
    title, settings = title_of(loaded, folder), loaded.trainer
    form = LossForm(loaded.kind.loss_unit, settings.smooths_labels)
    with listener_for(console, title, settings.max_steps, folder, form) as display:
        listener: RunListener = LoggingListener(display, folder)
        if loaded.tracking.notify.targets:
            listener = NotifyingListener(listener, loaded, folder, os.environ)
        for notice in checked.notices:
            display.notice(notice)
        if inline:
            from cluster.supervision.inline import train_inline

            outcome = train_inline(loaded, folder, store, manifest, listener, profile)
        else:
            how = SupervisionOptions(profile, options.strict)
            outcome = supervise(loaded, folder, store, manifest, listener, how)
    checkpoints = list_checkpoints(folder.checkpoints)
    newest = checkpoints[-1] if checkpoints else None
    lines = read_backwards(folder.metrics)
    traces = profile_folder(folder, profile) if profile else None
    return TrainResult(
        outcome=outcome,
        run=folder.path,
        location=folder.location,
        recipe=loaded,
        began_at=began_at,
        step=step_of(newest) if newest else 0,
        checkpoint=newest,
        validation=next((line for line in lines if isinstance(line, ValidationLine)), None),
        profile=traces if traces and traces.exists() else None,
    )


def recipe_and_run(
    recipe: str, overrides: Sequence[str], run: Path | str | None, address: str | None
) -> tuple[Recipe, RunFolder]:
    """Return a recipe with absolute paths, and the folder of its run.

    Args:
        run: the run's folder or URL; None for a folder in runs/ named after the recipe.
        address: address of a Ray cluster; None for that of the recipe.
    """
    path = find_recipe(recipe)
    if address is not None:
        overrides = [*overrides, f"cluster.address={address}"]
    loaded = with_absolute_paths(load_recipe(path, overrides))
    return loaded, RunFolder.of(run or RUNS / run_name(path, overrides))


def _check_profile(steps: StepRange, recipe: Recipe, run: RunFolder) -> None:
    """Check the steps of --profile: they are still to be trained, or were profiled before.

    Raises:
        RecipeError: the steps end after the training, are too many, or have been trained already.
    """
    longest = recipe.trainer.max_steps
    if steps.last > longest:
        raise RecipeError(
            f"--profile {steps} ends after step {longest}, which is trainer.max_steps: name steps "
            f"up to {longest}, or raise trainer.max_steps"
        )
    if steps.last - steps.first >= MAX_PROFILED_STEPS:
        raise RecipeError(
            f"--profile {steps} names {counted(steps.last - steps.first + 1, 'step')}, whose trace "
            f"would be too large for a viewer: name at most {MAX_PROFILED_STEPS} steps"
        )
    begun = newest_step(run)
    if steps.first <= begun and not profile_folder(run, steps).exists():
        raise RecipeError(
            f"--profile {steps} begins at step {steps.first}, but {run.path} continues from the "
            f"checkpoint of step {begun}: name later steps, up to trainer.max_steps, which is "
            f"{longest}"
        )


def title_of(recipe: Recipe, run: RunFolder) -> str:
    """Return one line that describes the run, its model, its ranks and its engine."""
    engine, cluster = recipe.engine, recipe.cluster
    device = "GPU" if cluster.gpus_per_rank else "CPU"
    low, high = cluster.min_ranks, cluster.max_ranks
    ranks = ("" if low == high else f"{low} to ") + counted(high, f"{device} rank")
    return f"{run.location}: {recipe.model}, {ranks}, ZeRO {engine.zero_stage}, {engine.precision}"
