"""Registry of losses by their names in recipes, and the base class of an extension's loss.

    class Focal(LossKind):
        gamma: float = identity(2.0, "Strength of down-weighting well-predicted tokens.", ge=0)

        def build(self):
            from my_package.focal import FocalLoss  # imports torch

            return FocalLoss(self.gamma)

    LOSSES.register("focal", Focal)

A recipe selects this loss with `trainer: {loss: focal, loss_options: {gamma: 1.0}}`. The fields of
the class are the options. They are checked when the recipe is loaded, and they are part of the
run's identity: a different value requires a new run. docs/extensions/z_loss.py is a complete
example.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING

from foundation.registry import Registry
from foundation.section import Section

if TYPE_CHECKING:
    from model.losses.loss import Loss


class LossKind(Section):
    """Settings of a loss, as fields; `build` creates the loss."""

    @abstractmethod
    def build(self) -> "Loss":
        """Return the loss, see `model.losses.loss.Loss`.

        A loss is a function of the tokens of one micro-batch. Its value is the *sum* of the losses
        of these tokens, not their mean.
        """


# None represents cross-entropy, whose setting is `trainer.label_smoothing`.
LOSSES: Registry[type[LossKind] | None] = Registry("loss", "trainer.loss")
LOSSES.register("cross_entropy", None)
