"""Network, batches, rounding and digests, which both sides of a comparison compute alike."""

import hashlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep, local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.exact.grids import GradientGrids
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.randomness import seed_torch
from trainer.tasks.task import training_task
from trainer.verify_zero.work import Work
from trainer.zero.frozen import freeze
from trainer.zero.settings import build_optimizer, parameter_groups

LEARNING_RATE = 1e-3  # of all steps; ZeRO does not depend on it


class Passes:
    """Network of a recipe, and the micro-batches of its first steps.

    Attributes:
        network: the network, on the device and in the recipe's precision.
        trained: its parameters by name.
        steps: this rank's micro-batches of each step.
        grids: the grids to which gradients are rounded; see `GradientGrids`.
    """

    def __init__(self, work: Work, placement: Placement) -> None:
        recipe = work.recipe
        store, manifest = open_dataset(recipe.data)
        self._device = placement.torch_device
        self._seed = recipe.seed
        self._task = training_task(recipe, manifest.header(), load_tokenizers(store, manifest))
        self.loss = self._task.loss
        slots = recipe.batching.micro_batches_per_step
        self.steps = local_rank_steps(
            WindowReader(store, manifest, recipe.data_settings),
            Cursor(),
            placement.rank,
            placement.world_size,
            slots,
        )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        F.linear = _linear  # type: ignore[assignment]
        bf16 = recipe.engine.precision == "bf16"
        self.network = freeze(self._task.build_network(), recipe.trainer.frozen)
        self.network.to(self._device, torch.bfloat16 if bf16 else None)
        parameters = self.network.named_parameters()
        self.trained = {name: p for name, p in parameters if p.requires_grad}
        self.grids = GradientGrids(list(self.trained), slots * work.most_ranks)

    def build_optimizer(self, recipe: TrainingRecipe) -> torch.optim.Optimizer:
        groups = parameter_groups(self.network, recipe.trainer.optimizer.weight_decay)
        _, optimizer = build_optimizer(groups, recipe.trainer.optimizer, recipe.engine)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        return optimizer

    def batches(self, step: int, data: RankStep) -> Iterator[DeviceBatch]:
        """Yield the batches of a step, each with the random numbers of its slot."""
        for slot, micro_batch in zip(data.slots, data.micro_batches, strict=True):
            seed_torch(self._seed, "dropout", step, slot)
            yield self._task.collate_for_training(micro_batch, self._device)

    def dummy(self) -> DeviceBatch:
        return self._task.dummy(self._device)


def digest(tensor: Tensor) -> str:
    """Return a hash of the bits of a tensor."""
    flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.blake2b(flat.numpy().data, digest_size=16).hexdigest()


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a linear layer; replaces `torch.nn.functional.linear` on both sides.

    In stage 3 DeepSpeed replaces torch's function by another one, which rounds differently.
    """
    product = x.matmul(weight.t())
    return product if bias is None else product + bias
