"""Locations of our parameters among Hugging Face's weights, and checks of config keys.

Our networks and Hugging Face's contain the same numbers under different names. In Hugging Face's,
one of our parameters may be split into several, transposed, or have its elements in a different
order.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from model.errors import ModelError

# Map from our names of activations to those of BERT and GPT-2, for export.
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_tanh": "gelu_new"}
# Map from their names to ours, for import; two of their names denote the same function.
ACTIVATIONS_READ = {
    **{"relu": "relu", "gelu": "gelu"},
    **{"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"},
}

C = TypeVar("C", bound=BaseModel)

LARGEST = 2**31 - 1  # maximum size; the product of two such sizes still fits into 64 bits


class HuggingFaceModel(NamedTuple):
    """Contents of config.json and of the weight files.

    Attributes:
        config: contents of config.json.
        weights: tensors by Hugging Face's names, on the device and in the dtype of the network.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]


class WeightLocation(NamedTuple):
    """Location of one of our parameters in Hugging Face's layout.

    Attributes:
        names: names of Hugging Face's parameters, whose rows are stacked in our parameter.
        rows: number of our rows that belong to each name, if there are several names.
        transposed: True if Hugging Face's parameter is (in, out), as in a `Conv1D`.
        reordered: axis of our parameter along which Hugging Face's elements have another order, or
            None if the order is the same.
        order: for each of Hugging Face's elements along this axis, its index in our parameter.
    """

    names: list[str]
    rows: list[int] | None = None
    transposed: bool = False
    reordered: int | None = None
    order: Tensor | None = None


def join_parameter(theirs: dict[str, Tensor], place: WeightLocation, shape: torch.Size) -> Tensor:
    """Remove the parts of one of our parameters from `theirs`, and return them joined.

    Raises:
        ModelError: a part is missing or has another shape.
    """
    require_weights(theirs, place.names)
    parts = [theirs.pop(name) for name in place.names]
    if place.transposed:
        parts = [part.T for part in parts]
    rows = place.rows or [shape[0]]
    for name, part, count in zip(place.names, parts, rows, strict=True):
        expected = (count, *shape[1:])
        if part.shape != expected:
            found, wanted = tuple(part.shape), expected
            if place.transposed:
                found, wanted = found[::-1], wanted[::-1]
            raise ModelError(
                f"The weight {name} has the shape {found}, but by the config it must be {wanted}. "
                "Use the config.json that belongs to the weights."
            )
    whole = torch.cat(parts)
    if place.reordered is not None:
        assert place.order is not None
        whole = whole.index_select(place.reordered, place.order.argsort().to(whole.device))
    return whole


def split_parameters(network: nn.Module, places: Mapping[str, WeightLocation]) -> dict[str, Tensor]:
    """Return copies of a network's parameters under Hugging Face's names."""
    weights: dict[str, Tensor] = {}
    for ours, place in places.items():
        whole = network.get_parameter(ours).detach()
        if place.reordered is not None:
            assert place.order is not None
            whole = whole.index_select(place.reordered, place.order.to(whole.device))
        parts = whole.split(place.rows) if place.rows else [whole]
        for name, part in zip(place.names, parts, strict=True):
            copied = part.T if place.transposed else part
            weights[name] = copied.clone(memory_format=torch.contiguous_format)
    return weights


def join_parameters(
    theirs: dict[str, Tensor], places: Mapping[str, WeightLocation], network: nn.Module
) -> dict[str, Tensor]:
    """Remove a network's parameters from `theirs`, and return them; see `join_parameter`."""
    return {
        name: join_parameter(theirs, place, network.get_parameter(name).shape)
        for name, place in places.items()
    }


def require_weights(theirs: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Raise ModelError if a weight is missing."""
    for name in names:
        if name not in theirs:
            raise ModelError(
                f"The weight {name} is missing. Use all files of the network, and the config.json "
                "that belongs to them."
            )


def network_config(kind: type[C], values: Mapping[str, Any]) -> C:
    """Return the settings of the network that a config describes.

    Raises:
        ModelError: no such network can be built.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ModelError(
            f"The config does not describe a network that can be built: {error}. Use the "
            "config.json that belongs to the weights."
        ) from error


def refuse_unused_weights(theirs: Mapping[str, Tensor], whose: str, wanted: str) -> None:
    """Raise ModelError if there are weights that a network does not use.

    Args:
        theirs: the weights that `join_parameter` has not removed.
        whose: family of networks, for the message.
        wanted: kind of network to use instead, for the message.

    Raises:
        ModelError: weights are left over.
    """
    if theirs:
        raise ModelError(
            f"The files have weights that do not belong to {whose}: {len(theirs)}, such as "
            f"{min(theirs)}. Use a network {wanted}, without other weights."
        )


def load_weights_like(network: nn.Module, state: Mapping[str, Tensor], vectors: str) -> None:
    """Assign weights to a network, on the device and in the dtype of the weight named `vectors`."""
    like = state[vectors]
    network.load_state_dict({name: x.to(like) for name, x in state.items()}, assign=True)


def refuse_unsupported_values(config: Mapping[str, Any], **expected: tuple[object, ...]) -> None:
    """Raise ModelError if a key of a config has a value that our networks do not support.

    Args:
        expected: the supported values of each key. A key that is missing in the config is taken to
            have the first supported value.

    Raises:
        ModelError: a key has another value; the message lists the supported values.
    """
    for name, values in expected.items():
        value = config.get(name, values[0])
        if value not in values:
            raise ModelError(
                f"{name} of the config is {value!r}, but it must be "
                f"{' or '.join(repr(each) for each in values)}. Convert the network, or choose "
                "another one."
            )


def count(config: Mapping[str, Any], name: str) -> int:
    """Return a size from the config, an integer from 1 to `LARGEST`.

    Raises:
        ModelError: the value is anything else.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise ModelError(
            f"{name} of the config is {value!r:.100}, but it must be a number from 1 to "
            f"{LARGEST:,}. Use the config.json that belongs to the weights."
        )
    return value
