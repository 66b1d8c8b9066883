"""Where our parameters are among their weights, and the keys of their configs, looked at.

A network of ours and one of theirs hold the same numbers under other names. Theirs may be cut into
several, transposed, or have the numbers of a vector in another order.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from model.errors import ModelError

LARGEST = 2**31 - 1  # of sizes: their products are still sizes of tensors


class HuggingFaceModel(NamedTuple):
    """What the two kinds of file hold.

    Attributes:
        config: of config.json.
        weights: by Hugging Face's names, on the device and in the dtype of the network.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]


class WeightLocation(NamedTuple):
    """The location of one of our parameters in the layout of Hugging Face.

    Attributes:
        names: theirs, one below the other in ours.
        rows: how many rows of ours each of several names has.
        transposed: whether theirs is (in, out), as in a `Conv1D`.
        reordered: the axis of ours along which theirs has another order; None: it has the same.
        order: of each element of that axis of theirs, its place in ours.
    """

    names: list[str]
    rows: list[int] | None = None
    transposed: bool = False
    reordered: int | None = None
    order: Tensor | None = None


def split_parameter(parameter: Tensor, place: WeightLocation) -> dict[str, Tensor]:
    """Returns copies of a parameter's parts, by their names."""
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
    """Takes the parts of a parameter out of the weights and makes one of them.

    Raises:
        ModelError: a part is missing or has another shape.
    """
    missing = [name for name in place.names if name not in theirs]
    if missing:
        raise ModelError(
            f"There is no weight {missing[0]}. Take all files of the network, and the config.json "
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
                "Take the config.json that belongs to the weights."
            )
    whole = torch.cat(parts)
    if place.reordered is not None:
        assert place.order is not None
        whole = whole.index_select(place.reordered, place.order.argsort().to(whole.device))
    return whole


def invalid_config_error(error: ValidationError) -> ModelError:
    """What is said of a config that describes none."""
    return ModelError(
        f"The config describes no network that can be built: {error}. Take the config.json that "
        "belongs to the weights."
    )


def refuse_unused_weights(theirs: Mapping[str, Tensor], whose: str, wanted: str) -> None:
    """Raises if weights are left of which a network has no use.

    Args:
        theirs: what `joined` has left.
        whose: the family of which they are none.
        wanted: what else is to be taken.

    Raises:
        ModelError: there are some.
    """
    if theirs:
        raise ModelError(
            f"Weights that are none of {whose}'s: {len(theirs)}, such as {min(theirs)}. Take a "
            f"network {wanted} and nothing else."
        )


def load_weights_like(network: nn.Module, state: Mapping[str, Tensor], vectors: str) -> None:
    """Gives a network its weights, all with device and dtype of those of that name."""
    like = state[vectors]
    network.load_state_dict({name: x.to(like) for name, x in state.items()}, assign=True)


def refuse_unsupported_values(config: Mapping[str, Any], **expected: tuple[object, ...]) -> None:
    """Raises if a key has a value with which the network would compute something else.

    A key that the config lacks has the first of its values.

    Raises:
        ModelError: it names the key, its value and the values that are possible.
    """
    for name, values in expected.items():
        value = config.get(name, values[0])
        if value not in values:
            raise ModelError(
                f"{name} of the config is {value!r}, but here a network can only have "
                f"{' or '.join(repr(each) for each in values)}. Convert it, or choose another one."
            )


def count(config: Mapping[str, Any], name: str) -> int:
    """A number of the config from 1 to `LARGEST`.

    Raises:
        ModelError: it is none.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise ModelError(
            f"{name} of the config is {value!r:.100}, but it must be a number from 1 to "
            f"{LARGEST:,}. Take the config.json that belongs to the weights."
        )
    return value
