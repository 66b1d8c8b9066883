"""Compare settings, data, losses and weights of two runs, and find the first difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cluster.errors import ClusterError
from cluster.recipe import Recipe, walk_fields
from foundation.section import change_class
from foundation.tasks import DEFAULT_TASK, TASKS
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import list_checkpoints, step_of
from run_store.checkpoints.format import CheckpointHeader, Parent, read_header
from run_store.checkpoints.reader import CheckpointReader
from run_store.errors import RunError
from run_store.folder import RunFolder, RunMetadata
from run_store.record.metrics_file import step_lines
from run_store.record.metrics_lines import StepLine
from run_store.record.run_settings import settings_of
from trainer.recipe import differing_identity, recipe_class
from trainer.task_kinds import NETWORKS
from transloom.observe.comparison.step_difference import loss_difference, step_difference


@dataclass(frozen=True)
class FirstDifference:
    """First step in which two runs differ, and the first difference in that step.

    Attributes:
        what: "parameters", or one of the names in `step_difference`, such as "data" or "loss".
        values: the differing values of the two runs; None for parameters.
        parameters: the weights and moments that differ, as "kind:parameter", in the order of the
            model; empty unless `what` is "parameters".
    """

    step: int
    what: str
    values: tuple[Any, Any] | None = None
    parameters: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two runs.

    Attributes:
        steps: number of steps that both runs have recorded.
        other_data_from: first of these steps with different data; None if all data are equal.
        other_loss_from: first of these steps whose losses differ, even in the last bit only; None
            if all losses are equal.
        largest_difference: largest difference between losses of the same step, relative to the
            first run's loss.
        checkpoint_step: step of the first common checkpoint that differs, or of the newest common
            checkpoint if none differs. None without a common checkpoint, or if the models differ.
        other_tensors: names of that checkpoint's weights and moments that differ in any bit, in the
            order of the model.
        tensors: number of that checkpoint's weights and moments.
        other_parameters: parameters that only one model has, or that have different shapes.
        first_difference: None if nothing differs.
    """

    steps: int
    other_data_from: int | None
    other_loss_from: int | None
    largest_difference: float
    checkpoint_step: int | None
    other_tensors: list[str]
    tensors: int
    other_parameters: list[str] = field(default_factory=list)
    first_difference: FirstDifference | None = None

    @property
    def is_same(self) -> bool:
        """True if everything that could be compared is the same to the last bit."""
        return self.first_difference is None and not self.other_parameters


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compare the metrics files and the common checkpoints of two runs.

    The runs may have different numbers of ranks. If their models differ, only the metrics files are
    compared.

    Raises:
        RunMismatchError: one of the folders has no run.
        RunError: the runs have no step in common.
        CheckpointError: a checkpoint is damaged.
    """
    for folder in (first, second):
        RunFolder(folder).card()
    ours, theirs = (step_lines(RunFolder(folder).metrics) for folder in (first, second))
    steps = sorted(ours.keys() & theirs.keys())
    if not steps:
        raise RunError(
            f"{first} has recorded {_span(ours)}, and {second} has recorded {_span(theirs)}: no "
            "step can be compared. Name two runs that have recorded some of the same steps"
        )

    def first_other(name: str) -> int | None:
        return next(
            (s for s in steps if getattr(ours[s], name, None) != getattr(theirs[s], name, None)),
            None,
        )

    state = _compare_states(_checkpoints(first), _checkpoints(second))
    return Comparison(
        steps=len(steps),
        other_data_from=first_other("data_digest"),
        other_loss_from=first_other("loss"),
        largest_difference=max(loss_difference(ours[step], theirs[step]) for step in steps),
        checkpoint_step=state.step,
        other_tensors=state.different,
        tensors=state.tensors,
        other_parameters=state.other_parameters,
        first_difference=_first(ours, theirs, steps, state),
    )


@dataclass(frozen=True)
class _States:
    """Fields of `Comparison` that describe the checkpoints."""

    step: int | None = None
    different: list[str] = field(default_factory=list)
    tensors: int = 0
    other_parameters: list[str] = field(default_factory=list)


def _first(
    ours: Mapping[int, StepLine],
    theirs: Mapping[int, StepLine],
    steps: Sequence[int],
    state: _States,
) -> FirstDifference | None:
    """Return the first difference of two runs; None if nothing differs.

    If both the lines and the checkpoints of the same step differ, return the difference of the
    lines.

    Args:
        ours, theirs: the lines of the first and of the second run, by step.
        steps: the steps that both runs have recorded, in order.
        state: the comparison of the checkpoints.
    """
    found = None
    for step in steps:
        if apart := step_difference(ours[step], theirs[step]):
            found = FirstDifference(step, apart.what, (apart.first, apart.second))
            break
    if state.different and state.step is not None and (not found or state.step < found.step):
        return FirstDifference(state.step, "parameters", parameters=state.different)
    return found


def _compare_states(first: dict[int, Path], second: dict[int, Path]) -> _States:
    """Compare the common checkpoints in order of their steps, up to the first that differs."""
    compared = _States()
    if first and second:  # all checkpoints of a run have the same parameters
        headers = [read_header(paths[max(paths)]) for paths in (first, second)]
        if other := _other_parameters(*headers):
            return _States(other_parameters=other)
    for step in sorted(first.keys() & second.keys()):
        ours, theirs = (CheckpointReader(Checkpoint(path[step])) for path in (first, second))
        different, tensors = _compare_state(ours, theirs)
        compared = _States(step, different, tensors)
        if different:
            break
    return compared


def _compare_state(ours: CheckpointReader, theirs: CheckpointReader) -> tuple[list[str], int]:
    """Return the tensors that differ, as "kind:parameter", and the number of all tensors."""
    places = {name: place for place, name in enumerate(ours.checkpoint.header.parameters)}
    names = sorted(ours.names | theirs.names, key=lambda name: (places[name[1]], name[0]))
    different = [
        f"{kind}:{parameter}"
        for kind, parameter in names
        if (kind, parameter) not in ours.names & theirs.names
        or not torch.equal(ours.whole(kind, parameter), theirs.whole(kind, parameter))
    ]
    return different, len(names)


def _other_parameters(first: CheckpointHeader, second: CheckpointHeader) -> list[str]:
    """Return parameters that only one model has, or that have different shapes, in model order."""
    names = dict.fromkeys([*first.parameters, *second.parameters])
    return [n for n in names if first.parameters.get(n) != second.parameters.get(n)]


def _checkpoints(folder: Path) -> dict[int, Path]:
    return {step_of(path): path for path in list_checkpoints(RunFolder(folder).checkpoints)}


def _span(lines: dict[int, StepLine]) -> str:
    return f"steps {min(lines)} to {max(lines)}" if lines else "no step"


def recipe_differences(first: Path, second: Path) -> dict[str, tuple[Any, Any]]:
    """Return the identity and continuable settings in which two runs differ, with both values.

    Continuable settings have the values of each run's last start. Extensions are not loaded.

    Raises:
        RunMismatchError: one of the folders has no run.
        ClusterError: a run's recipe cannot be read.
    """
    ours, theirs = (RunFolder(folder).card() for folder in (first, second))
    found: dict[str, tuple[Any, Any]] = dict(differing_identity(ours.identity, theirs.identity))
    if ours.dataset_identity != theirs.dataset_identity:
        found["dataset manifest"] = ours.dataset_identity, theirs.dataset_identity
    if ours.parent != theirs.parent:
        found["first weights"] = _origin(ours.parent), _origin(theirs.parent)
    names = _continuable(ours) & _continuable(theirs)
    before, after = (_settings(folder) for folder in (first, second))
    for name in before.keys() & after.keys() & names:
        if before[name] != after[name]:
            found[name] = before[name], after[name]
    return dict(sorted(found.items(), key=lambda item: (item[0] != "seed", item[0])))


def _continuable(card: RunMetadata) -> set[str]:
    """Return the names of a run's continuable settings.

    The settings of a task or network that an extension adds are not included.
    """
    task = str(card.identity.get("task", DEFAULT_TASK))
    network = card.identity.get("model.network")
    network = None if network is None else str(network)
    known = task in TASKS and (network is None or network in NETWORKS)
    recipe = recipe_class(Recipe, task, network) if known else Recipe
    return {n for n, field in walk_fields(recipe) if change_class(field) == "continuable"}


def _settings(run: Path) -> dict[str, Any]:
    file = RunFolder(run).recipe
    try:
        return settings_of(file)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{file} cannot be read: {error}. Restore {file.name} from a copy"
        ) from error


def _origin(parent: Parent | None) -> str:
    return "random" if parent is None else f"{parent.run_id}@{parent.step}"
