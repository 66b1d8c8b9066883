"""Losses by the names that recipes give them, and what an extension's loss is.

    class Focal(LossKind):
        gamma: float = identity(2.0, "How much less a token counts that is predicted well.", ge=0)

        def build(self):
            from my_package.focal import FocalLoss  # imports torch

            return FocalLoss(self.gamma)

    LOSSES.register("focal", Focal)

A recipe then has `trainer: {loss: focal, loss_options: {gamma: 1.0}}`. The fields of the class are
the options: they are checked when the recipe is loaded, and another value is another run.
docs/extensions/z_loss.py is a whole one.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING

from foundation.registry import Registry
from foundation.section import Section

if TYPE_CHECKING:
    from model.losses.loss import Loss


class LossKind(Section):
    """A loss; its fields are its settings."""

    @abstractmethod
    def build(self) -> "Loss":
        """The loss itself: see `model.losses.loss.Loss`.

        It is a function of the tokens of one micro-batch, and a *sum* over them.
        """


# None stands for cross-entropy, whose setting is `trainer.label_smoothing`.
LOSSES: Registry[type[LossKind] | None] = Registry("loss", "trainer.loss")
LOSSES.register("cross_entropy", None)
