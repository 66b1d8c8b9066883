"""Locations of our parameters among Hugging Face's weights, and checks of config keys.

Our network and theirs hold the same numbers under different names. In theirs, a parameter may be
split into several, transposed, or have its elements in a different order.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from model.errors import ModelError

LARGEST = 2**31 - 1  # sizes up to this have products that are valid tensor sizes


class HuggingFaceModel(NamedTuple):
    """Contents of config.json and of the weight files.

    Attributes:
        config: of config.json.
        weights: by Hugging Face's names, on the device and in the dtype of the network.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]


class WeightLocation(NamedTuple):
    """Location of one of our parameters in their layout.

    Attributes:
        names: their parameters, stacked along the rows of ours.
        rows: number of our rows for each of several names.
        transposed: True if theirs is (in, out), as in a `Conv1D`.
        reordered: axis of ours along which their order differs, or None.
        order: for each element of their axis, its index in ours.
    """

    names: list[str]
    rows: list[int] | None = None
    transposed: bool = False
    reordered: int | None = None
    order: Tensor | None = None


def split_parameter(parameter: Tensor, place: WeightLocation) -> dict[str, Tensor]:
    """Return copies of a parameter's parts, by their names."""
    whole = parameter.detach()
    if place.reordered is not None:
        assert place.order is not None
        whole = whole.index_select(place.reordered, place.order.to(whole.device))
    parts = whole.split(place.rows) if place.rows else [whole]
    return {
        name: (part.T if place.transposed else part).clone(memory_format=torch.contiguous_format)
        for name, part in zip(place.names, parts, strict=True)
    }


def join_parameter(theirs: dict[str, Tensor], place: WeightLocation, shape: torch.Size) -> Tensor:
    """Remove a parameter's parts from the weights and return them joined.

    Raises:
        ModelError: a part is missing or has another shape.
    """
    missing = [name for name in place.names if name not in theirs]
    if missing:
        raise ModelError(
            f"There is no weight {missing[0]}. Use all files of the network, and the config.json "
            "that belongs to them."
        )
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


def invalid_config_error(error: ValidationError) -> ModelError:
    """Return the error for a config that describes no valid network."""
    return ModelError(
        f"The config describes no network that can be built: {error}. Use the config.json that "
        "belongs to the weights."
    )


def refuse_unused_weights(theirs: Mapping[str, Tensor], whose: str, wanted: str) -> None:
    """Raise ModelError if there are weights that a network does not use.

    Args:
        theirs: weights that `join_parameter` has left over.
        whose: family of networks, for the message.
        wanted: remedy: the kind of network to use.

    Raises:
        ModelError: weights are left over.
    """
    if theirs:
        raise ModelError(
            f"Weights that do not belong to {whose}: {len(theirs)}, such as {min(theirs)}. Use a "
            f"network {wanted}, without other weights."
        )


def load_weights_like(network: nn.Module, state: Mapping[str, Tensor], vectors: str) -> None:
    """Assign a network's weights, all with device and dtype of the one named `vectors`."""
    like = state[vectors]
    network.load_state_dict({name: x.to(like) for name, x in state.items()}, assign=True)


def refuse_unsupported_values(config: Mapping[str, Any], **expected: tuple[object, ...]) -> None:
    """Raise ModelError if a key has a value that would change the network's results.

    A missing key has the first of its values.

    Raises:
        ModelError: it gives the key, its value and the possible values.
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
    """Return a number of the config, from 1 to `LARGEST`.

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
