"""Interface of the torch side of a task, for ranks and inference.

    micro-batch ──collate──▶ tensors, their digest ──network's forward, with the loss──▶ sums
    held-out set ──Scoring──▶ rows, each computed by one rank ──summarise──▶ scores

The numpy side of a task is defined by `data_pipeline.batching.task`. The training loop, not the
task, is responsible for seeding, collectives, digests over steps, stopping and preemption. So a
task does not depend on ranks.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from torch import nn

from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.task import DATA_TASKS, HeldOut, MicroBatchShape
from data_pipeline.dataset.manifest_header import ManifestHeader
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.errors import ExtensionError
from foundation.registry import imported
from foundation.wording import join_items
from model.flops import Flops, NetworkFlops
from model.losses.loss import CrossEntropy, token_losses
from model.losses.r_drop import RDrop
from run_store.record.probe import Probe
from run_store.scores import Scores
from trainer.recipe import TrainingRecipe
from trainer.registries.losses import LOSSES
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.flops import PaddedSizes, network_flops
from trainer.tasks.network import build_network


@dataclass(frozen=True)
class ShownExample:
    """Held-out example in readable form: the input, the expected output, and the model's output."""

    given: str
    expected: str
    made: str


@dataclass(frozen=True)
class ValidationResult:
    """Scores of one validation, and the model's outputs for the examples.

    Attributes:
        scores: the scores by name.
        examples: held-out examples with the model's outputs; empty if the task has no outputs.
        decoding: the search that generated the outputs, such as "greedy"; None if no search did.
    """

    scores: Scores
    examples: list[ShownExample] = field(default_factory=list)
    decoding: str | None = None

    @property
    def texts(self) -> list[str]:
        """Output of the model for each example."""
        return [example.made for example in self.examples]


class Scoring(ABC):
    """Scoring of one held-out set, whose results the ranks collect in a table.

    Exactly one rank writes each row of the table, and the row is 0 on all other ranks. The sum of
    the ranks' tables is therefore exact.

    Attributes:
        batches: the whole set, the same for any number of ranks.
        rows: the number of rows of the table.
        columns: the number of columns of the table.
        scores_parts: whether `score` also accepts a part of a batch, so that the memory preflight
            can try parts before the whole batch.
    """

    scores_parts: ClassVar[bool] = False
    batches: list[MicroBatch]
    rows: int
    columns: int

    @abstractmethod
    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the index of each table row that a batch fills, and the first values of the row.

        The other values of the row stay 0.

        Args:
            network: the network in evaluation mode.
            micro_batch: `batches[number]`, or a part of it.
            number: the index of the batch in `batches`.
            device: the device that computes.
        """

    @abstractmethod
    def summarise(self, table: np.ndarray) -> ValidationResult:
        """Compute the scores from the complete table, which is the sum of the ranks' tables."""

    def samples(self, network: nn.Module) -> list[ShownExample]:
        """Return examples for display, which do not affect any score; called on one rank only."""
        return []


class TrainingTask(ABC):
    """Torch side of a task, for one recipe and one dataset."""

    def __init__(
        self, recipe: TrainingRecipe, manifest: ManifestHeader, tokenizers: Mapping[str, Tokenizer]
    ) -> None:
        """Store the parts that the task depends on.

        Args:
            recipe: the recipe.
            manifest: the manifest of the dataset, without its shards.
            tokenizers: the tokenizers by field.
        """
        self.recipe = recipe
        self.manifest = manifest
        self.tokenizers = tokenizers
        self.data = DATA_TASKS[recipe.task]

    def build_network(self) -> nn.Module:
        """Build the network with its initial weights."""
        return build_network(self.recipe, self.tokenizers)

    @property
    def loss(self) -> object:
        """Loss of the recipe, which is passed to the network's forward as the last argument."""
        config = self.recipe.trainer
        kind = LOSSES[config.loss]
        if kind is None and config.r_drop:
            return RDrop(config.label_smoothing, config.r_drop)
        if kind is None:
            return CrossEntropy(config.label_smoothing)
        return kind.model_validate(config.loss_options).build()

    @abstractmethod
    def collate(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Return the tensors of a micro-batch, with the digest of the network's inputs."""

    def collate_for_training(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Collate a micro-batch for training: count operations, and repeat rows for R-Drop."""
        batch = self.collate(micro_batch, device)
        if self.recipe.trainer.r_drop:
            batch = batch.twice()
        return replace(batch, flops=self.flops(micro_batch))

    def sizes(self, micro_batch: MicroBatch) -> PaddedSizes | None:
        """Return the sizes from which operations are counted; None (default) disables counting."""
        return None

    def flops(self, micro_batch: MicroBatch) -> Flops | None:
        """Return the floating-point operations of a micro-batch's forward and backward pass.

        Under R-Drop, both passes over the micro-batch are counted. The result is None if operations
        are not counted.
        """
        each, sizes = self._network_flops, self.sizes(micro_batch)
        if each is None or sizes is None:
            return None
        passes = 2 if self.recipe.trainer.r_drop else 1
        counted = each.of(*sizes)
        return Flops(passes * counted.model, passes * counted.hardware)

    @cached_property
    def _network_flops(self) -> NetworkFlops | None:
        return network_flops(self.recipe, self.tokenizers)

    @abstractmethod
    def targets(self, micro_batch: MicroBatch) -> np.ndarray:
        """Return the number of targets of each part, [parts], in the order of the losses."""

    @abstractmethod
    def scoring(self, heldout: HeldOut) -> Scoring:
        """Return the scoring of a held-out set."""

    def probe(self, network: nn.Module, sentence: str) -> Probe:
        """Return the network's output for a probe sentence.

        A task must implement this method only if its `TaskKind.probes` is true.

        Raises:
            ModelError: the network returns NaN.
        """
        raise NotImplementedError(f"{type(self).__name__} has no probe")

    @torch.no_grad()
    def example_losses(
        self, network: nn.Module, micro_batch: MicroBatch, device: torch.device
    ) -> np.ndarray:
        """Return the loss of each part of a micro-batch, [parts], for step inspection.

        The loss is a sum over the part's targets, in nats, without label smoothing or other terms.
        It includes dropout if the network is in training mode. Under R-Drop it is the mean of both
        passes.
        """
        inputs = self.collate_for_training(micro_batch, device).inputs
        losses_n = network(*inputs, token_losses)
        if self.recipe.trainer.r_drop:
            losses_n = losses_n.view(2, -1).mean(dim=0)
        targets = self.targets(micro_batch)
        starts = np.cumsum(targets) - targets
        sums = np.zeros(len(targets))
        some = targets > 0  # a part of a document may have no targets
        sums[some] = np.add.reduceat(losses_n.double().cpu().numpy(), starts[some])
        return sums

    def example_texts(self, micro_batch: MicroBatch) -> dict[str, list[str]]:
        """Return named lists of texts for step inspection, with one text per part of a micro-batch.

        The default is one list per field, whose name is the field's role. The tokenizer decodes its
        texts.
        """
        return {
            field.role: self.tokenizers[field.name].decode(micro_batch.fields[field.name].rows())
            for field in self.manifest.fields
            if field.name in micro_batch.fields
        }

    def synthetic(self, shape: MicroBatchShape, device: torch.device) -> DeviceBatch:
        """Return a synthetic training batch with a shape from `DataTask.widest`."""
        return self.collate_for_training(
            self.data.synthetic(shape, self.manifest.special_ids), device
        )

    def dummy(self, device: torch.device) -> DeviceBatch:
        """Return the dummy batch, for ranks that have one slot less than other ranks."""
        return self.collate_for_training(self.data.dummy(self.manifest.special_ids), device)


def training_task(
    recipe: TrainingRecipe, manifest: ManifestHeader, tokenizers: Mapping[str, Tokenizer]
) -> TrainingTask:
    """Return the torch side of a recipe's task.

    Raises:
        ExtensionError: the class cannot be imported, or lacks a method.
    """
    made = cast(type[TrainingTask], imported(recipe.kind.training))
    if missing := getattr(made, "__abstractmethods__", None):
        raise ExtensionError(
            f"The class {recipe.kind.training} lacks {join_items(sorted(missing))}, which every "
            "task must define (see trainer.tasks.task). Define these methods in the class."
        )
    return made(recipe, manifest, tokenizers)


def loss_scores(loss: float) -> dict[str, float | None]:
    """Return a loss in nats per token and its perplexity, each as None if it is not finite."""
    finite = math.isfinite(loss)
    perplexity = math.exp(min(loss, 700.0)) if finite else None
    return {"loss": loss if finite else None, "perplexity": perplexity}


def save_texts(folder: Path, name: str, texts: list[str]) -> Path:
    """Save the outputs for examples, so that a score can be checked later; return the path.

    Each output has one line, in which \\n represents a line break.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.txt"
    lines = (text.replace("\n", "\\n") for text in texts)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
