"""Selection of the weights that a new run copies from a checkpoint of another run.

    same network      all parameters, which must be those of the recipe's model
    another network   the complete encoder, `encoder.*`; the rest keeps its initial values

So a network with another head can start from the encoder of a masked model. An encoder that matches
only partly is refused, because the copied weights would have another meaning in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from foundation.wording import counted, join_items
from trainer.checkpoints.checkpoint import Checkpoint
from trainer.checkpoints.reader import require_same_shapes
from trainer.errors import CheckpointError

ENCODER = "encoder."  # prefix of the names of an encoder's parameters


@dataclass(frozen=True)
class WeightTransfer:
    """Parameters that a network copies from a checkpoint.

    Attributes:
        taken: the names of the parameters that are copied.
        fresh: the names of the network's parameters that keep their initial values.
        left: the names of the checkpoint's parameters that are not copied.
        weights: the number of elements of the copied parameters; 0 if the networks are of the same
            kind.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    weights: int = 0

    @property
    def skipped_text(self) -> str | None:
        """Description of the parameters that are not copied, or None if all are copied."""
        if not self.fresh and not self.left:
            return None
        return (
            f"the encoder is taken from the other run: {counted(len(self.taken), 'parameter')} "
            f"with {counted(self.weights, 'weight')}. "
            f"Newly initialized: {join_items(self.fresh)}; not taken: {join_items(self.left)}"
        )


def plan_weight_transfer(
    checkpoint: Checkpoint, network: str, shapes: Mapping[str, Sequence[int]]
) -> WeightTransfer:
    """Return the parameters that a network copies from a checkpoint.

    Args:
        checkpoint: the checkpoint of the other run.
        network: the name of the network's kind, `model.network` of the recipe.
        shapes: the shapes of the network's parameters, by name.

    Raises:
        CheckpointError: the checkpoint's network is of the same kind and has other parameters, or
            it is of another kind and does not have the same encoder.
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
            "the recipe. Weights can be copied to another kind of network only if both networks "
            f"have an encoder. Name a run with model.network {network}"
        )
    require_same_shapes(checkpoint, shapes, within=ENCODER)
    return WeightTransfer(
        taken,
        fresh=tuple(name for name in shapes if name not in taken),
        left=tuple(name for name in theirs if name not in taken),
        weights=sum(prod(shapes[name]) for name in taken),
    )


def _network_of(checkpoint: Checkpoint) -> str | None:
    """Return the kind of network in a checkpoint's recipe, or None if the recipe has none."""
    model = checkpoint.header.recipe.get("model")
    network = model.get("network") if isinstance(model, dict) else None
    return network if isinstance(network, str) else None
