"""A run's network, loaded from one of its checkpoints and ready for use."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Self, TypeVar, cast

import torch
from torch import nn

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import open_store
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers, shared_tokenizer
from foundation.errors import DataError, ExtensionError
from foundation.tasks import tasks_of_command
from model.errors import ModelError
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.folder_names import checkpoint_name
from run_store.checkpoints.reader import CheckpointReader, require_same_shapes
from run_store.errors import DamagedCheckpointError, RunMismatchError
from run_store.folder import RunFolder
from trainer.recipe import TrainingRecipe
from trainer.tasks.network import build_network, parameter_shapes
from transloom.inference.chosen_checkpoint import find_checkpoint
from transloom.inference.engine_names import Precision

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Weights:
    """Identity of a network's weights, with which another process can load the same weights."""

    run: Path
    checkpoint: str
    precision: Precision


@dataclass(frozen=True)
class TrainedNetwork:
    """Network in evaluation mode, with its tokenizers, recipe and checkpoint.

    Attributes:
        tokenizers: the tokenizer of each field, by the field's name.
        recipe: the recipe in the checkpoint.
        weights: identity of the loaded weights.
        passed_over: reasons why checkpoints that are normally preferred were not loaded.
    """

    model: nn.Module
    tokenizers: dict[str, Tokenizer]
    recipe: TrainingRecipe
    checkpoint: Checkpoint
    weights: Weights
    passed_over: list[str]

    def of_command(self, command: str) -> "TrainedNetwork":
        """Return this network if a subcommand of transloom uses the runs of its task.

        Raises:
            RunMismatchError: the run was trained for another task.
        """
        made_for_it = self.recipe.kind.command
        if made_for_it != command:
            remedy = f"use transloom {made_for_it} for this run, or " if made_for_it else ""
            raise RunMismatchError(
                f"{self.weights.run} was trained for {self.recipe.task}, but a run of "
                f"{' or '.join(tasks_of_command(command))} is needed: {remedy}name another run"
            )
        return self


def exported_network(trained: TrainedNetwork, kind: type[N], name: str, target: str) -> N:
    """Return a run's network if it is of the kind that a format represents.

    Args:
        name: the value of `model.network` for networks of this kind.
        target: description of the format.

    Raises:
        ModelError: the network is of another kind.
    """
    if not isinstance(trained.model, kind):
        raise ModelError(
            f"model.network is {trained.recipe.model.network}, but only {name} can be exported in "
            f"{target}. Export a run of that network."
        )
    return trained.model


def load_network(
    run: Path, checkpoint: int | str | None, device: str, precision: Precision
) -> TrainedNetwork:
    """Load the newest intact weights of a run, or those of one checkpoint.

    Args:
        checkpoint: a step or the name of an average, or None for the newest.

    Raises:
        RunMismatchError: the run does not exist.
        CheckpointError: the run has no such checkpoint, or it is damaged.
    """
    folder = RunFolder(run)
    folder.card()
    damaged: dict[Path, str] = {}
    while True:
        found, passed_over = find_checkpoint(folder, checkpoint, damaged)
        try:
            return _load(folder, found, passed_over, device, precision)
        except DamagedCheckpointError as error:
            if checkpoint is not None:
                raise
            damaged[found.path] = str(error)


def _load(
    run: RunFolder,
    found: Checkpoint,
    passed_over: list[str],
    device: str,
    precision: Precision,
) -> TrainedNetwork:
    """Load the weights of a checkpoint.

    Raises:
        DamagedCheckpointError: they differ from their hashes.
    """
    recipe = TrainingRecipe.of_checkpoint(found.header.recipe, found.header.identity)
    store = open_store(run.dataset)
    tokenizers = load_tokenizers(store, Manifest.load(store))
    if not recipe.extensions:  # check the shapes before a network is allocated
        require_same_shapes(found, parameter_shapes(recipe, tokenizers))
    model = build_network(recipe, tokenizers)
    require_same_shapes(found, {name: p.shape for name, p in model.named_parameters()})
    model.load_state_dict(CheckpointReader(found).weights())
    model.to(device, torch.bfloat16 if precision == "bf16" else None)
    weights = Weights(run.path, checkpoint_name(found.path), precision)
    return TrainedNetwork(model.eval(), tokenizers, recipe, found, weights, passed_over)


def shapes_of_run(run: RunFolder, checkpoint: Checkpoint) -> dict[str, tuple[int, ...]] | None:
    """Return the parameter shapes that a checkpoint's recipe defines for the run's network.

    Returns:
        The shape of each parameter by its name. None if the shapes cannot be determined here: the
        recipe uses extensions, or the run's tokenizers cannot be read.

    Raises:
        RunMismatchError: this version of transloom does not accept the recipe.
    """
    header = checkpoint.header
    try:
        recipe = TrainingRecipe.of_checkpoint(header.recipe, header.identity)
        store = open_store(run.dataset, retry_delays_seconds=())
        tokenizers = load_tokenizers(store, Manifest.load(store))
    except DataError:
        return None
    except RunMismatchError as error:
        if isinstance(error.__cause__, ExtensionError):
            return None
        raise
    return None if recipe.extensions else parameter_shapes(recipe, tokenizers)


class TextReader(Generic[N]):
    """Trained network with its tokenizer.

    Attributes:
        command: subcommand of transloom for the runs that a subclass can load.
        passed_over: reasons why checkpoints that are normally preferred were not loaded.
    """

    command: ClassVar[str]

    def __init__(self, trained: TrainedNetwork) -> None:
        self.network = cast(N, trained.model.eval())
        self.tokenizer = shared_tokenizer(trained.tokenizers)
        self.checkpoint = trained.checkpoint
        self.passed_over = trained.passed_over

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: int | str | None = None,
        precision: Precision = "fp32",
    ) -> Self:
        """Load the newest intact weights of a run, or those of one checkpoint.

        Args:
            checkpoint: a step or the name of an average, or None for the newest.
            precision: number format of the weights and the network.

        Raises:
            RunMismatchError: the path has no run, or its run was trained for another task.
            CheckpointError: the run has no such checkpoint, or it is damaged.
        """
        return cls(load_network(Path(run), checkpoint, "cpu", precision).of_command(cls.command))
