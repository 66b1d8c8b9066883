"""Interface of a task's half in torch, for ranks and inference.

    micro-batch ──collate──▶ tensors, their digest ──network's forward, with the loss──▶ sums
    held-out set ──Scoring──▶ rows, each computed by one rank ──summarise──▶ scores

The other half, in numpy, is `data_pipeline.batching.task`. Seeding, collectives, the folding of
digests, stopping and preemption stay in the loop: a task does not depend on ranks.
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
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.errors import ExtensionError
from foundation.registry import imported
from foundation.wording import join_items
from model.flops import Flops, NetworkFlops
from model.losses.loss import CrossEntropy, token_losses
from model.losses.r_drop import RDrop
from trainer.recipe import TrainingRecipe
from trainer.registries.losses import LOSSES
from trainer.scores import Scores
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.flops import PaddedSizes, network_flops
from trainer.tasks.network import build_network
from trainer.tasks.probe import Probe


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
        examples: the examples with outputs.
        decoding: the search that generated the texts, see `trainer.scores.Score`.
    """

    scores: Scores
    examples: list[ShownExample] = field(default_factory=list)
    decoding: str | None = None

    @property
    def texts(self) -> list[str]:
        """Output of the model for each example."""
        return [example.made for example in self.examples]


class Scoring(ABC):
    """Scoring of one held-out set.

    One rank writes each row of a table, so that the sum of the ranks' tables is exact.

    Attributes:
        batches: the whole set, the same for any number of ranks.
        rows: the number of rows of the table.
        columns: the number of columns of the table.
        scores_parts: whether `score` also takes parts of these batches, so that the memory
            preflight can try smaller batches before the widest.
    """

    scores_parts: ClassVar[bool] = False
    batches: list[MicroBatch]
    rows: int
    columns: int

    @abstractmethod
    def score(
        self, network: nn.Module, micro_batch: MicroBatch, number: int, device: torch.device
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the rows that a batch fills, each with its first numbers.

        Args:
            network: the network in evaluation mode.
            micro_batch: the batch of this number in `batches`, or a part of it.
            number: the number of the batch.
            device: the device that computes.
        """

    @abstractmethod
    def summarise(self, table: np.ndarray) -> ValidationResult:
        """Return the scores of the complete table."""

    def samples(self, network: nn.Module) -> list[ShownExample]:
        """Return examples that are only displayed; called on one rank only."""
        return []


class TrainingTask(ABC):
    """Task under one recipe, on one dataset."""

    def __init__(
        self, recipe: TrainingRecipe, manifest: Manifest, tokenizers: Mapping[str, Tokenizer]
    ) -> None:
        """Store the parts that the task depends on.

        Args:
            recipe: the recipe.
            manifest: the manifest of the dataset.
            tokenizers: the tokenizers by field.
        """
        self.recipe = recipe
        self.manifest = manifest
        self.tokenizers = tokenizers
        self.data = DATA_TASKS[recipe.task]

    def build_network(self) -> nn.Module:
        """Return the network with its initial weights: for an engine, a replica, an average."""
        return build_network(self.recipe, self.tokenizers)

    @property
    def loss(self) -> object:
        """Loss of the recipe, the last argument of the network's forward."""
        config = self.recipe.trainer
        kind = LOSSES[config.loss]
        if kind is None and config.r_drop:
            return RDrop(config.label_smoothing, config.r_drop)
        if kind is None:
            return CrossEntropy(config.label_smoothing)
        return kind.model_validate(config.loss_options).build()

    @abstractmethod
    def collate(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Return the tensors of a micro-batch, and the digest of the network's inputs."""

    def collate_for_training(self, micro_batch: MicroBatch, device: torch.device) -> DeviceBatch:
        """Collate the input of a training step, count its operations, and double it for R-Drop."""
        batch = self.collate(micro_batch, device)
        if self.recipe.trainer.r_drop:
            batch = batch.twice()
        return replace(batch, flops=self.flops(micro_batch))

    def sizes(self, micro_batch: MicroBatch) -> PaddedSizes | None:
        """Return the sizes that determine the operations, or None (the default) if not counted."""
        return None

    def flops(self, micro_batch: MicroBatch) -> Flops | None:
        """Return the operations of a micro-batch, forward and backward, or None if not counted.

        Under R-Drop they are those of both passes.
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
        """Return the number of predicted tokens of each part, in the order of forward."""

    @abstractmethod
    def scoring(self, heldout: HeldOut) -> Scoring:
        """Return the scoring of a held-out set."""

    def probe(self, network: nn.Module, sentence: str) -> Probe:
        """Return the network's output for a probe sentence, if the task's kind `probes`.

        Raises:
            ModelError: the network returns NaN.
        """
        raise NotImplementedError(f"{type(self).__name__} has no probe")

    @torch.no_grad()
    def example_losses(
        self, network: nn.Module, micro_batch: MicroBatch, device: torch.device
    ) -> np.ndarray:
        """Return the loss of each part of a micro-batch, [parts], for the inspection of a step.

        It is a sum over the part's targets, in nats, without label smoothing and other terms. If
        the network is in training mode, it includes dropout. Under R-Drop it is the mean of both
        passes.
        """
        inputs = self.collate_for_training(micro_batch, device).inputs
        losses_n = network(*inputs, token_losses)
        if self.recipe.trainer.r_drop:
            losses_n = losses_n.view(2, -1).mean(dim=0)
        targets = self.targets(micro_batch)
        starts = np.cumsum(targets) - targets
        sums = np.zeros(len(targets))
        some = targets > 0  # a part of a document may have none
        sums[some] = np.add.reduceat(losses_n.double().cpu().numpy(), starts[some])
        return sums

    def example_texts(self, micro_batch: MicroBatch) -> dict[str, list[str]]:
        """Return the texts of each part of a micro-batch by name, for the inspection of a step.

        These are the fields by their roles, as the tokenizer decodes their pieces.
        """
        return {
            field.role: self.tokenizers[field.name].decode(micro_batch.fields[field.name].rows())
            for field in self.manifest.fields
            if field.name in micro_batch.fields
        }

    def synthetic(self, shape: MicroBatchShape, device: torch.device) -> DeviceBatch:
        """Return the batch of a training step for a shape of `DataTask.widest`."""
        return self.collate_for_training(
            self.data.synthetic(shape, self.manifest.special_ids), device
        )

    def dummy(self, device: torch.device) -> DeviceBatch:
        """Return the dummy batch of ranks that have one slot fewer than others."""
        return self.collate_for_training(self.data.dummy(self.manifest.special_ids), device)


def training_task(
    recipe: TrainingRecipe, manifest: Manifest, tokenizers: Mapping[str, Tokenizer]
) -> TrainingTask:
    """Return the half in torch of a recipe's task.

    Raises:
        ExtensionError: the class cannot be imported, or lacks a method.
    """
    made = cast(type[TrainingTask], imported(recipe.kind.training))
    if missing := getattr(made, "__abstractmethods__", None):
        raise ExtensionError(
            f"{recipe.kind.training} lacks {join_items(sorted(missing))}, which every task must "
            "define (see trainer.tasks.task). Define them there."
        )
    return made(recipe, manifest, tokenizers)


def loss_scores(loss: float) -> dict[str, float | None]:
    """Return a loss in nats per token and its perplexity; None for values that are not finite."""
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
