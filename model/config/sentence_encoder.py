"""The settings of an encoder that turns sentences into vectors."""

from typing import Literal

from foundation.section import identity
from model.config.encoder_only import EncoderOnlyConfig


class SentenceEncoderConfig(EncoderOnlyConfig):
    """An encoder, and how the hidden states of a sentence become its vector."""

    network: str = identity("sentence_encoder", "Which network, of those that the task can train.")
    pooling: Literal["mean", "first"] = identity(
        "mean",
        "A sentence's vector before it gets length 1: the mean of its tokens' hidden states "
        "(Reimers & Gurevych 2019), or that of its first token, BOS (cls, Devlin et al. 2019).",
    )
    temperature: float = identity(
        0.05,
        "What cosines are divided by in the loss: less makes the nearest wrong sentences count "
        "more (Chen et al. 2020). sentence-transformers has its reciprocal, a scale of 20.",
        gt=0,
    )
