"""Recipe settings that suit the size of a corpus, for `transloom init`.

The settings are starting points, not optima. Small corpora get small models, small vocabularies and
high dropout, as in Multi30k's recipe (Wu et al. 2021). Large corpora get the base model of Vaswani
et al. 2017.
"""

import os
from dataclasses import dataclass, replace
from typing import Any

# Approximate characters per subword piece, in languages with an alphabet.
CHARACTERS_PER_PIECE = 3.5

# A pretrained model is fine-tuned for few epochs at a low learning rate.
TUNING_EPOCHS = 3
TUNING_RATE = 0.00005


@dataclass(frozen=True)
class _Tier:
    name: str
    below_pairs: float
    says: str
    vocabulary: int
    layers: int
    width: int
    feed_forward: int
    heads: int
    dropout: float
    longest: int
    micro_batch: int
    micro_batches: int
    rate: float
    epochs: int
    gpus: int


_TIERS = (
    _Tier("tiny", 5_000, "Very little text: the model memorizes sentences more than the language.",
          500, 2, 128, 256, 4, 0.1, 64, 512, 4, 0.003, 30, 0),
    _Tier("small", 50_000, "Little text: a small model that trains on a laptop.",
          4000, 3, 128, 256, 4, 0.3, 128, 1024, 8, 0.004, 30, 0),
    _Tier("medium", 1_000_000, "A model of a few million weights, for a GPU or a day on CPUs.",
          12_000, 4, 256, 1024, 4, 0.2, 128, 2048, 8, 0.001, 20, 0),
    _Tier("large", float("inf"), "The base model of Vaswani et al. 2017, for GPUs.",
          32_000, 6, 512, 2048, 8, 0.1, 256, 4096, 8, 0.0007, 10, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Scale(_Tier):
    """Settings for one corpus.

    Attributes:
        every: steps between two validations, and between two checkpoints.
    """

    steps: int
    warm_up: int
    every: int
    ranks: int
    precision: str

    def for_template(self) -> dict[str, Any]:
        """Return the settings by the names that the recipe's template uses."""
        return {f"scale_{name}": value for name, value in vars(self).items()}


def scale_of(pairs: int, target_characters: int) -> Scale:
    """Return the settings for a corpus of the given size.

    Args:
        pairs: the number of training pairs.
        target_characters: the total number of characters of the target sentences.
    """
    tier = next(tier for tier in _TIERS if pairs < tier.below_pairs)
    tokens = max(pairs, target_characters / CHARACTERS_PER_PIECE)
    per_step = tier.micro_batch * tier.micro_batches
    steps = _round(max(200, tier.epochs * tokens / per_step))
    return Scale(
        **vars(tier),
        steps=steps,
        warm_up=_round(max(50, min(4000, steps / 10))),
        every=_round(max(25, min(2000, steps / 10))),
        ranks=max(1, min(2, os.cpu_count() or 1)),
        precision="bf16" if tier.gpus else "fp32",
    )


def tuning_scale(scale: Scale, says: str) -> Scale:
    """Return the settings for fine-tuning a pretrained model.

    Args:
        says: a sentence that describes the model, for the recipe's first comment.
    """
    steps = _round(max(100, scale.steps * TUNING_EPOCHS / scale.epochs))
    return replace(
        scale,
        says=says,
        epochs=TUNING_EPOCHS,
        steps=steps,
        rate=TUNING_RATE,
        warm_up=_round(max(20, min(1000, steps / 10))),
        every=_round(max(25, min(1000, steps / 10))),
    )


def _round(number: float) -> int:
    """Return the number rounded to two significant digits."""
    whole = round(number)
    scale = 10 ** max(0, len(str(whole)) - 2)
    return round(whole / scale) * scale
