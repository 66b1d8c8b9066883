"""Settings of an encoder that turns sentences into vectors."""

from typing import Literal

from foundation.section import identity
from model.config.encoder_only import EncoderOnlyConfig


class SentenceEncoderConfig(EncoderOnlyConfig):
    """Encoder-only Transformer whose hidden states are pooled into a sentence vector."""

    network: str = identity(
        "sentence_encoder", "Network to train, one of those that the task supports."
    )
    pooling: Literal["mean", "first"] = identity(
        "mean",
        "Pooling of hidden states into a sentence's vector, before it is scaled to length 1: the "
        "mean of its tokens (Reimers & Gurevych 2019), or its first token, BOS (CLS in Devlin et "
        "al. 2019).",
    )
    temperature: float = identity(
        0.05,
        "Divisor of the cosines in the loss: a lower one gives more weight to the most similar "
        "wrong sentences (Chen et al. 2020). sentence-transformers sets its reciprocal, a scale "
        "of 20.",
        gt=0,
    )
