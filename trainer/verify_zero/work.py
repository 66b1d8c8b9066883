"""Steps that all cells compute, and the digests of their results; without torch."""

from dataclasses import dataclass

from trainer.recipe import TrainingRecipe


@dataclass(frozen=True)
class Work:
    """First steps of a recipe.

    Attributes:
        recipe: the recipe, with exact numerics.
        steps: the number of steps.
        most_ranks: the largest number of ranks. DeepSpeed averages gradients over ranks, so each
            gradient is multiplied by their number before. The grids have room for that.
    """

    recipe: TrainingRecipe
    steps: int
    most_ranks: int


@dataclass(frozen=True)
class Digests:
    """Hashes of a parameter after a step.

    Attributes:
        master: of its fp32 weights, which the optimizer updates.
        read: of its weights that the forward pass reads.
    """

    master: str
    read: str
