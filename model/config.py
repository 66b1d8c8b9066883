"""The settings of the network and of its search for a translation.

Every leaf field names its change class: *identity* fields define the run and never change in it,
*continuable* fields may change between restarts.
"""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AttentionBackend(StrEnum):
    """The ways to compute the same attention."""

    SDPA = "sdpa"  # torch's fused kernels
    MATMUL = "matmul"  # two matrix products and a softmax
    VARLEN = "varlen"  # trains on packed sentences: a flash kernel on CUDA, a loop on CPUs


class ModelConfig(BaseModel):
    """Size and form of the Transformer of "Attention Is All You Need" (Vaswani et al. 2017)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    encoder_layers: Annotated[
        int,
        Field(gt=0, description="Layers of the encoder, N in the paper (§3.1; base: 6)."),
        "identity",
    ] = 6
    decoder_layers: Annotated[
        int,
        Field(gt=0, description="Layers of the decoder, N in the paper (§3.1; base: 6)."),
        "identity",
    ] = 6
    width: Annotated[
        int,
        Field(gt=0, description="Width of every layer's output, d_model (§3.1; base: 512)."),
        "identity",
    ] = 512
    feed_forward_width: Annotated[
        int,
        Field(gt=0, description="Inner width of the feed-forward network, d_ff (§3.3)."),
        "identity",
    ] = 2048
    heads: Annotated[
        int,
        Field(gt=0, description="Attention heads, h (§3.2.2); each is width / heads wide."),
        "identity",
    ] = 8
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Dropout of each sub-layer's output and of the embeddings "
            "with their positions, P_drop (§5.4; base: 0.1).",
        ),
        "identity",
    ] = 0.1
    attention_dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="Dropout of the attention weights. The paper has none."),
        "identity",
    ] = 0.0
    norm: Annotated[
        Literal["post", "pre"],
        Field(
            description="Layer normalisation after each residual sum (post, the paper's §3.1) "
            "or before each sub-layer with a last one per stack (pre, Xiong et al. 2020)."
        ),
        "identity",
    ] = "post"
    share_embeddings: Annotated[
        Literal["all", "decoder", "none"],
        Field(
            description="Which matrices are one: source, target and output (all, the paper's "
            "§3.4; needs a joint vocabulary), target and output (decoder), or none."
        ),
        "identity",
    ] = "all"

    @property
    def head_width(self) -> int:
        """Width of one head, d_k = d_v in the paper."""
        return self.width // self.heads

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if self.width % self.heads:
            raise ValueError(
                f"model.width is {self.width}, which model.heads = {self.heads} does not divide. "
                "Choose a width that is a multiple of the number of heads."
            )
        if self.width % 2:
            raise ValueError(
                f"model.width is {self.width}, but sines and cosines of the positions come in "
                "pairs (§3.5). Choose an even width."
            )
        return self


class DecodingConfig(BaseModel):
    """How a translation is searched for. Defaults are the paper's (§6.1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    beam_size: Annotated[
        int,
        Field(gt=0, description="Hypotheses kept per sentence; 1 is greedy search."),
        "continuable",
    ] = 4
    length_penalty: Annotated[
        float,
        Field(
            ge=0,
            description="α of the length penalty ((5 + length) / 6)^α that divides a "
            "hypothesis' log-probability (Wu et al. 2016, eq. 14); 0 switches it off.",
        ),
        "continuable",
    ] = 0.6
    max_length_factor: Annotated[
        float,
        Field(ge=0, description="Output pieces allowed per source piece, EOS counted in both."),
        "continuable",
    ] = 1.0
    max_extra_length: Annotated[
        int,
        Field(ge=1, description="Output pieces allowed on top of those (the paper: 50)."),
        "continuable",
    ] = 50
