"""Plan a replay: choose its start checkpoint, its last step, its data and its settings.

    run folder ──▶ record, checkpoints, recipe ──▶ ReplayPlan: start, legs, checkpoints to compare

A leg is a range of steps with the same dataset. A new leg starts where the run quarantined a shard.
Planning writes no file.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.data.data_record import DataRecord, StreamStart
from cluster.errors import RecipeError
from cluster.recipe import Recipe, load_run_recipe, with_absolute_paths
from data_pipeline.batching.plan import Cursor
from data_pipeline.dataset.manifest import Manifest, open_dataset
from data_pipeline.storage.store import DatasetStore
from foundation.wording import counted, join_items, span
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.checkpoints.format import CheckpointHeader
from run_store.errors import CheckpointError, RunError
from run_store.folder import RunFolder, StepRange
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import TrainLine
from trainer.recipe import leaves
from trainer.state.digest import START
from transloom.inference.chosen_checkpoint import readable_headers
from transloom.observe.replay.loss_jumps import largest_jump
from transloom.observe.replay.recorded_steps import RecordedSteps


@dataclass(frozen=True)
class Leg:
    """Consecutive steps, up to and including `last`, with the same dataset."""

    last: int
    dataset_identity: str


@dataclass(frozen=True)
class ReplayPlan:
    """Steps of a run to train again.

    Attributes:
        data: the record of the data that each step of the run used.
        steps: the requested steps.
        start: the checkpoint to start from; None starts from the run's first weights.
        checkpoints: the run's intact checkpoints at trained steps, by step; the replay's state is
            compared with them.
        fingerprint_of: the checkpoint header whose numerics apply to the first trained step; None
            if no header is readable.
    """

    run: RunFolder
    recipe: Recipe
    store: DatasetStore
    manifest: Manifest
    data: DataRecord
    recorded: RecordedSteps
    steps: StepRange
    start: Checkpoint | None
    legs: tuple[Leg, ...]
    checkpoints: dict[int, Path]
    fingerprint_of: CheckpointHeader | None

    @property
    def from_step(self) -> int:
        return self.start.step if self.start else 0

    @property
    def trained(self) -> StepRange:
        """All steps that the replay trains: those after `start`, up to the last requested step."""
        return StepRange(self.from_step + 1, self.steps.last)

    @property
    def seconds(self) -> float:
        """Seconds that the trained steps took in the run, without the time between steps."""
        lines = (self.recorded.lines.get(n) for n in range(self.trained.first, self.steps.last + 1))
        return sum(line.step_seconds for line in lines if isinstance(line, TrainLine))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the model's parameters, in model order; empty if no checkpoint lists them."""
        return tuple(self.fingerprint_of.parameters) if self.fingerprint_of else ()

    @property
    def start_of_data(self) -> StreamStart:
        if self.start is None:
            return StreamStart(0, Cursor(), START)
        header = self.start.header
        return StreamStart(header.step, Cursor.from_json(header.cursor), header.data_digest)

    def announcement(self) -> str:
        """Describe the steps to train, and the state to start from, in a sentence."""
        count = self.trained.last - self.from_step
        if self.start:
            origin = f"the checkpoint of step {self.from_step}"
        elif self.recipe.trainer.init_from:
            origin = f"step 0, with the weights of {self.recipe.trainer.init_from}"
        else:
            origin = "step 0, with the initial weights of the seed"
        return (
            f"{counted(count, 'step')} to train again, {self.trained.first} to "
            f"{self.trained.last}, from {origin}: about {span(self.seconds)} at the "
            "recorded speed"
        )


def recipe_of(
    run: RunFolder, overrides: Sequence[str], dataset: str | None, address: str | None, ranks: int
) -> Recipe:
    """Return the run's recipe with the settings of the replay.

    Args:
        overrides: `field=value` texts for execution fields.
        dataset: the location of the dataset; None uses the location in the run's recipe.
        address: the address of the Ray cluster.
        ranks: the number of ranks of the replay.

    Raises:
        RecipeError: an override sets a field that is not an execution field, or there are more
            ranks than slots.
        RunMismatchError: an extension is missing here, or its code differs from the run's.
    """
    own_folder = [text for text in overrides if text.startswith("extension_folder=")]
    before = load_run_recipe(run, own_folder)
    where = [f"cluster.address={json.dumps(address)}", f"cluster.ranks={ranks}"]
    recipe = load_run_recipe(run, [*where, "cluster.warm_spares=false", *overrides])
    if dataset is not None:
        recipe = recipe.with_values(data={"dataset": dataset})
    old = {name: value for name, value, _ in leaves(before)}
    for name, value, change in leaves(recipe):
        if change != "execution" and old.get(name) != value:
            raise RecipeError(
                f"{name} is {old.get(name)!r} in {run.recipe}, but {value!r} was requested, which "
                "would change the results of the steps. A replay may set only execution fields, "
                "such as engine.zero_stage"
            )
    return with_absolute_paths(recipe)


def plan_replay(
    run: RunFolder,
    recipe: Recipe,
    steps: StepRange | None,
    worst: bool,
    notice: Callable[[str], None],
) -> ReplayPlan:
    """Determine the steps to train, and the checkpoint to start from.

    Args:
        steps: the requested steps; None for all recorded steps.
        worst: True to replay only the requested step at which loss or gradient norm jumped most.
        notice: called with messages for the user.

    Raises:
        RunMismatchError: the folder has no run, or the dataset is not the run's.
        RunError: the metrics file lacks the steps, or a setting was changed between them.
    """
    run.card()
    store, manifest = open_dataset(recipe.data)
    data = DataRecord(run, manifest)
    recorded = RecordedSteps.of(read_metrics(run.metrics))
    reached = max((step for step in recorded.lines if step in data.digests), default=0)
    steps = steps or StepRange(1, reached)
    if steps.last > reached or not reached:
        raise RunError(
            f"Step {steps.last} of {run.path} cannot be replayed: the run has recorded "
            f"{counted(reached, 'step')} that can be replayed. Name steps from 1 to {reached}"
        )
    if worst:
        lines = (line for _, line in sorted(recorded.lines.items()))
        jump = largest_jump([line for line in lines if isinstance(line, TrainLine)], steps)
        notice(f"the largest jump is at {jump}")
        steps = StepRange(jump.step, jump.step)
    start = _nearest_intact(run, steps.first, notice)
    first = start.step + 1 if start else 1
    back = recorded.require_settings(first, steps.last)
    if back:
        recipe = _with_former_settings(recipe, back)
    headers = readable_headers(list_checkpoints(run.checkpoints))
    trained = [
        path for path, header in headers.items() if header.step in StepRange(first, steps.last)
    ]
    consequence = "the replay's state is not compared with this checkpoint"
    intact = _intact(trained, consequence, notice)
    before = start.header if start else next(iter(headers.values()), None)
    return ReplayPlan(
        run=run,
        recipe=recipe,
        store=store,
        manifest=manifest,
        data=data,
        recorded=recorded,
        steps=steps,
        start=start,
        legs=_legs(data, first, steps.last),
        checkpoints={checkpoint.step: checkpoint.path.absolute() for checkpoint in intact},
        fingerprint_of=before,
    )


def _nearest_intact(run: RunFolder, step: int, notice: Callable[[str], None]) -> Checkpoint | None:
    """Return the newest intact checkpoint before a step; None if there is none.

    Damaged checkpoints are reported and skipped.
    """
    earlier = [path for path in list_checkpoints(run.checkpoints) if step_of(path) < step]
    consequence = "an earlier checkpoint is used instead"
    return next(_intact(reversed(earlier), consequence, notice), None)


def _intact(
    paths: Iterable[Path], consequence: str, notice: Callable[[str], None]
) -> Iterator[Checkpoint]:
    """Yield the intact ones of checkpoints; report the damage of others and its consequence."""
    for path in paths:
        try:
            checkpoint = Checkpoint(path)
            checkpoint.verify_before_reading()
        except CheckpointError as error:
            notice(f"{error}; {consequence}")
        else:
            yield checkpoint


def _legs(data: DataRecord, first: int, last: int) -> tuple[Leg, ...]:
    ends = [n for n in range(first, last) if data.identity_at(n) != data.identity_at(n + 1)]
    return tuple(Leg(end, data.identity_at(end)) for end in [*ends, last])


def _with_former_settings(recipe: Recipe, values: dict[str, object]) -> Recipe:
    """Return the recipe with the former values of settings that the run changed later.

    Args:
        values: the former values by dotted name, from `RecordedSteps.require_settings`.

    Raises:
        RunError: the metrics file names a field that cannot change in a run.
    """
    # The metrics file is untrusted: it must not set any other field, such as extension_folder.
    may_change = {name for name, _, change in leaves(recipe) if change == "continuable"}
    if others := [name for name in values if name not in may_change]:
        raise RunError(
            f"The metrics file says that the run changed {join_items(others)}, but only the "
            "continuable fields in recipe.yaml can change in a run. Restore metrics.jsonl and "
            "recipe.yaml from a copy, or replay later steps"
        )
    dumped = recipe.model_dump(mode="json")
    for name, value in values.items():
        *sections, field = name.split(".")
        section = dumped
        for part in sections:
            section = section[part]
        section[field] = value
    return Recipe.of(dumped)
