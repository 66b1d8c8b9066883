"""Estimate the size of a recipe's parameters, a rank's state, and checkpoints.

The command that trains avoids importing torch, which takes seconds. This module therefore adds up
the sizes of the matrices in the recipe instead of building the network. The result is at most a few
percent below the true number. `transloom plan` builds the network on torch's meta device, where it
takes no memory, and counts exactly.
"""

import math

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig
from run_store.checkpoints.memory_file import SLOTS
from trainer.memory.state_size import StateSize, checkpoint_bytes, state_size
from trainer.recipe import TrainingRecipe
from trainer.registries.optimizers import OPTIMIZERS
from trainer.tasks.frozen import frozen_names

MAX_STALL_SHARE = 0.02
COPY_BYTES_PER_SECOND = 3e9
CHECKSUM_BYTES_PER_SECOND = 1e9
TRANSFER_BYTES_PER_SECOND = 0.3e9


def min_parameters(recipe: TrainingRecipe, manifest: Manifest) -> int | None:
    """Return a lower bound of a network's number of parameters, or None for an extension's network.

    The bound counts only the elements of matrices.
    """
    sizes = [manifest.tokenizers[field.name].vocabulary_size for field in manifest.fields]
    model = recipe.model
    if not isinstance(model, ModelConfig | DecoderOnlyConfig | EncoderOnlyConfig):
        return None
    # The matrices of the query, output, key and value.
    attention = 2 * model.width**2 + 2 * model.width * model.groups * model.head_width
    matrices = 3 if model.activation == "swiglu" else 2
    layer = attention + matrices * model.width * model.inner_width
    if isinstance(model, ModelConfig):
        layers = model.encoder_layers * layer + model.decoder_layers * (attention + layer)
        source, target = sizes[0], sizes[-1]
        rows = {"all": target, "decoder": source + target, "none": source + 2 * target}
        return layers + rows[model.share_embeddings] * model.width
    tied = isinstance(model, EncoderOnlyConfig) or model.tie_embeddings
    return model.layers * layer + (1 if tied else 2) * sizes[0] * model.width


def count_parameters(
    recipe: TrainingRecipe, store: DatasetStore, manifest: Manifest
) -> tuple[int, int]:
    """Return the number of the network's parameters, and how many of them are frozen.

    Raises:
        DataError: the dataset's tokenizers cannot be read.
        EngineError: a pattern of `trainer.frozen` matches nothing, or all are frozen.
    """
    from data_pipeline.tokenizers.tokenizer import load_tokenizers
    from trainer.tasks.network import build_network, parameter_shapes  # imports torch

    tokenizers = load_tokenizers(store, manifest)
    if recipe.extensions:  # networks of extensions may not support the meta device
        network = build_network(recipe, tokenizers)
        sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    else:
        shapes = parameter_shapes(recipe, tokenizers)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    frozen = frozen_names(sizes, recipe.trainer.frozen)
    return sum(sizes.values()), sum(sizes[name] for name in frozen)


def size_of_state(
    recipe: TrainingRecipe, parameters: int, ranks: int, frozen: int | None = None
) -> StateSize:
    """Return the size of the training state that one rank holds in a group of `ranks` ranks.

    Args:
        frozen: number of frozen parameters, or None if the number is not known. The result is then
            a lower bound.
    """
    return state_size(
        parameters,
        recipe.engine,
        moments=_moments(recipe),
        averaged=bool(recipe.trainer.ema_decay),
        ranks=ranks,
        frozen=_frozen(recipe, parameters) if frozen is None else frozen,
    )


def size_of_checkpoint(recipe: TrainingRecipe, parameters: int, frozen: int | None = None) -> int:
    """Return the bytes of one checkpoint on disk; see `size_of_state` for the arguments."""
    return checkpoint_bytes(
        parameters,
        moments=_moments(recipe),
        averaged=bool(recipe.trainer.ema_decay),
        frozen=_frozen(recipe, parameters) if frozen is None else frozen,
    )


def memory_tier_bytes(recipe: TrainingRecipe, size: StateSize) -> int:
    """Return the bytes of `/dev/shm` that memory checkpoints take for each rank on a single node.

    On several nodes, which keep copies for each other, they take twice as much.

    Args:
        size: the size of a rank's state.

    Returns:
        The bytes, or 0 if the recipe has no memory checkpoints.
    """
    if not recipe.checkpoints.memory_every_steps:
        return 0
    return SLOTS * size.checkpoint_copy


def recommended_memory_interval(size: StateSize, step_seconds: float) -> int:
    """Return the number of steps between memory checkpoints at which they cost little time.

    The copy stops training for at most `MAX_STALL_SHARE` of the time, and the background work
    (checksum, copy to the next node) ends before the next copy. The assumed rates are less than
    half of those that benchmarks/memory_tier.py measured.

    Args:
        size: the size of a rank's state.
        step_seconds: the duration of a step.
    """
    stall = size.checkpoint_copy / COPY_BYTES_PER_SECOND / MAX_STALL_SHARE
    return max(1, math.ceil(max(stall, background_seconds(size)) / step_seconds))


def background_seconds(size: StateSize) -> float:
    """Return the seconds of background work for a memory checkpoint: checksum, copy to a node."""
    copy = size.checkpoint_copy
    return copy / CHECKSUM_BYTES_PER_SECOND + 2 * copy / TRANSFER_BYTES_PER_SECOND


def _frozen(recipe: TrainingRecipe, parameters: int) -> int:
    """Return an upper bound of the number of frozen parameters: all of them, or 0."""
    return parameters if recipe.trainer.frozen else 0


def _moments(recipe: TrainingRecipe) -> int:
    return len(OPTIMIZERS[recipe.trainer.optimizer.type].moments)
