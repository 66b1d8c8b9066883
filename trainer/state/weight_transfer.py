"""The weights that a new run takes from a checkpoint of another one.

    same network      all parameters, which must be those of the recipe's model
    another network   the encoder, `encoder.*`, whole; what is around it starts as it was built

So a network with another head begins with the encoder of a masked model. An encoder that fits in
part is refused: it would compute something else with the weights that it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from foundation.wording import counted, join_items
from trainer.checkpoints.format import Checkpoint
from trainer.checkpoints.reader import require_same_shapes
from trainer.errors import CheckpointError

ENCODER = "encoder."  # what the parameters' names begin with


@dataclass(frozen=True)
class WeightTransfer:
    """Which parameters a network takes from a checkpoint.

    Attributes:
        taken: those of both.
        fresh: those of the network that keep the weights that they were built with.
        left: those of the checkpoint that the network has not.
        weights: how many numbers are taken.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    weights: int = 0

    @property
    def skipped_text(self) -> str | None:
        """What is not taken, in words; None if all is."""
        if not self.fresh and not self.left:
            return None
        return (
            f"{counted(len(self.taken), 'parameter')} of the encoder, "
            f"{counted(self.weights, 'weight')}, begin with those of the other run; "
            f"anew: {join_items(self.fresh)}; left out: {join_items(self.left)}"
        )


def plan_weight_transfer(
    checkpoint: Checkpoint, network: str, shapes: Mapping[str, Sequence[int]]
) -> WeightTransfer:
    """What a network takes from a checkpoint.

    Args:
        network: the name of its kind, `model.network` of the recipe.
        shapes: of its parameters, by name.

    Raises:
        CheckpointError: the checkpoint is of the same kind and has other parameters, or is of
            another kind and has not the same encoder.
    """
    other = _network_of(checkpoint)
    if other in (None, network):
        require_same_shapes(checkpoint, shapes)
        return WeightTransfer(tuple(shapes))
    theirs = checkpoint.header.parameters
    taken = tuple(name for name in shapes if name.startswith(ENCODER))
    if not taken or not any(name.startswith(ENCODER) for name in theirs):
        raise CheckpointError(
            f"trainer.init_from: model.network is {other} in {checkpoint.path} and {network} in "
            "the recipe, and they have no encoder in common. Name a run of the same network, or "
            "one whose network has an encoder"
        )
    require_same_shapes(checkpoint, shapes, within=ENCODER)
    return WeightTransfer(
        taken,
        fresh=tuple(name for name in shapes if name not in taken),
        left=tuple(name for name in theirs if name not in taken),
        weights=sum(prod(shapes[name]) for name in taken),
    )


def _network_of(checkpoint: Checkpoint) -> str | None:
    """The kind of network that a checkpoint's recipe names; None if it was written before any."""
    model = checkpoint.header.recipe.get("model")
    network = model.get("network") if isinstance(model, dict) else None
    return network if isinstance(network, str) else None
