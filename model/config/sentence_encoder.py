"""Settings of an encoder that turns sentences into vectors."""

from typing import Literal

from foundation.section import identity
from model.config.encoder_only import EncoderOnlyConfig


class SentenceEncoderConfig(EncoderOnlyConfig):
    """Encoder-only Transformer whose hidden states are pooled into a sentence vector."""

    network: str = identity("sentence_encoder", "Network to train; the task must support it.")
    pooling: Literal["mean", "first"] = identity(
        "mean",
        "Pooling of hidden states into a sentence's vector, which is then scaled to length 1. "
        "mean: the mean over all tokens (Reimers & Gurevych 2019); first: the first token, BOS "
        "(CLS in Devlin et al. 2019).",
    )
    temperature: float = identity(
        0.05,
        "Divisor of the cosines in the loss. A lower temperature gives more weight to the most "
        "similar wrong sentences (Chen et al. 2020). The default corresponds to the scale of 20 in "
        "sentence-transformers, which multiplies by the reciprocal.",
        gt=0,
    )
