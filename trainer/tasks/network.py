"""Construction of a recipe's network with its initial weights, without an engine."""

from collections.abc import Callable, Mapping
from typing import Protocol, cast

import torch
from torch import nn

from data_pipeline.tokenizers.tokenizer import Tokenizer
from foundation.registry import imported
from model.errors import ModelError
from trainer.recipe import TrainingRecipe
from trainer.task_kinds import NETWORKS
from trainer.tasks.randomness import seed_torch


class Network(Protocol):
    """Module that an engine can train; every network here is also an nn.Module.

    `forward` takes the tensors of a batch and a loss. It returns sums over the batch as a named
    tuple of scalars. The engine minimises the first sum. Every parameter must be used within
    `forward`, because ZeRO-3 gathers weights only there. The rows of one micro-batch may influence
    each other, but different micro-batches may not, because the result must not depend on their
    distribution over ranks.

    Attributes:
        width: the width of the model, which the paper's learning rate depends on.
    """

    width: int

    def checkpoint_activations(self, on: bool) -> None:
        """Set whether the backward pass recomputes activations instead of storing them."""


# Function that builds a network from a recipe and the tokenizers by field.
Build = Callable[[TrainingRecipe, Mapping[str, Tokenizer]], nn.Module]


def parameter_shapes(
    recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the network's parameters by name, without allocating memory.

    Use it only for built-in networks: an extension's network may not support torch's meta device.
    """
    with torch.device("meta"):
        network = build_network(recipe, tokenizers)
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def parameter_names(recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]) -> list[str]:
    """Return the names of the parameters of a built-in network or an extension's network."""
    if not recipe.extensions:
        return list(parameter_shapes(recipe, tokenizers))
    # An extension's network may not support torch's meta device.
    network = build_network(recipe, tokenizers)
    return [name for name, _ in network.named_parameters()]


def build_network(recipe: TrainingRecipe, tokenizers: Mapping[str, Tokenizer]) -> nn.Module:
    """Return the network with its initial weights, which follow from the recipe's seed.

    Args:
        recipe: the recipe, which names the network.
        tokenizers: the tokenizers by field.

    Raises:
        ExtensionError: the network's builder cannot be imported.
        ModelError: the network lacks an attribute that engines need; see `Network`.
    """
    seed_torch(recipe.seed, "weights")
    place = NETWORKS[recipe.model.network].build
    network = cast(Build, imported(place))(recipe, tokenizers)
    _require_attributes(network, place)
    return network


def _require_attributes(network: nn.Module, place: str) -> None:
    """Check that a network has all members of `Network` except `forward`.

    Raises:
        ModelError: a member is missing or has the wrong type.
    """
    what = f"The network {type(network).__name__}, which {place} builds,"
    width = getattr(network, "width", None)
    if type(width) is not int or width < 1:
        raise ModelError(
            f"{what} has the width {width!r}, expected a positive int: the size of its hidden "
            "states, by which the paper's schedule scales the learning rate. Set self.width in "
            "its __init__."
        )
    if not callable(getattr(network, "checkpoint_activations", None)):
        raise ModelError(
            f"{what} has no method checkpoint_activations(on: bool), which engines call to choose "
            "whether the backward pass recomputes activations. Define it; it may do nothing."
        )


def sum_names(sums: object, network: nn.Module) -> tuple[str, ...]:
    """Return the names of the sums that a forward pass returned.

    Raises:
        ModelError: it did not return a named tuple.
    """
    names = getattr(sums, "_fields", None)
    if names is None:
        raise ModelError(
            f"forward of {type(network).__name__} returned a {type(sums).__name__}, expected a "
            "named tuple of sums, whose first sum the engine minimises. Return the result of the "
            "loss, such as model.losses.loss.LossSums."
        )
    return cast(tuple[str, ...], names)
