"""Settings of the encoder-only network and of filling in masked tokens."""

from typing import Any, ClassVar, Literal, Self

from pydantic import ValidationInfo, field_validator, model_validator

from foundation.section import Section, continuable, identity
from model.config.transformer import MAX_LAYERS, MAX_WIDTH, SingleStackConfig, check_heads

# Architecture of a published family; the recipe chooses sizes and dropout.
ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    "bert": {"norm": "post", "norm_epsilon": 1e-12, "activation": "gelu", "segments": 2},
}
MAX_SEGMENTS = 10_000


class EncoderOnlyConfig(SingleStackConfig):
    """Size and architecture of a Transformer with an encoder only (Devlin et al. 2019).

    Default sizes are those of BERT's base model.
    """

    presets = ENCODER_PRESETS
    bias: ClassVar[bool] = True
    norm_kind: ClassVar[Literal["layer", "rms"]] = "layer"

    network: str = identity("encoder_only", "Network to train; the task must support it.")
    preset: Literal["bert"] | None = identity(
        None,
        "Family that sets the defaults of norm, norm_epsilon, activation and segments: BERT "
        "(Devlin et al. 2019).",
    )
    layers: int = identity(12, "Number of layers (BERT base: 12).", gt=0, le=MAX_LAYERS)
    width: int = identity(
        768, "Width of every layer's output (BERT base: 768).", gt=0, le=MAX_WIDTH
    )
    heads: int = identity(
        12, "Number of attention heads; each has the size width / heads (BERT base: 12).", gt=0
    )
    feed_forward_width: int | None = identity(
        None, "Inner width of the feed-forward network. The default is 4 · width.", gt=0
    )
    norm: Literal["post", "pre"] = identity(
        "pre",
        "Position of layer normalisation. post: on the embeddings and after each residual sum "
        "(BERT); pre: before each sub-layer and at the end (Xiong et al. 2020).",
    )
    norm_epsilon: float = identity(
        1e-5, "Constant that norms add to the variance (BERT: 1e-12).", gt=0
    )
    activation: Literal["relu", "gelu", "gelu_tanh"] = identity(
        "gelu",
        "Non-linearity of the feed-forward network and of heads. relu: max(0, x); gelu: GELU "
        "(Hendrycks & Gimpel 2016; BERT); gelu_tanh: approximation of GELU by tanh.",
    )
    segments: int = identity(
        0,
        "Number of segment vectors. Each token gets the vector of its part of the input, such as a "
        "side of a pair (BERT: 2). 0 means no segments.",
        ge=0,
        le=MAX_SEGMENTS,
    )
    dropout: float = identity(
        0.1,
        "Dropout rate of each sub-layer's output and of the embeddings (BERT: 0.1).",
        ge=0,
        lt=1,
    )
    attention_dropout: float = identity(
        0.0, "Dropout rate of the attention weights (BERT: 0.1).", ge=0, lt=1
    )

    @property
    def groups(self) -> int:
        """Number of heads of keys and values, equal to the number of query heads."""
        return self.heads

    @property
    def pre_norm(self) -> bool:
        """True if norms precede sub-layers, false if they follow residual sums."""
        return self.norm == "pre"

    @field_validator("feed_forward_width")
    @classmethod
    def _four_times_as_wide(cls, given: int | None, before: ValidationInfo) -> int | None:
        if given is not None or "width" not in before.data:
            return given
        width: int = before.data["width"]
        return 4 * width

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        check_heads(self.width, self.heads, self.groups)
        return self


class LabelTextsConfig(EncoderOnlyConfig):
    """Encoder-only Transformer with a head that predicts a text's label from its first token."""

    network: str = identity("label_texts", "Network to train; the task must support it.")


class LabelTokensConfig(EncoderOnlyConfig):
    """Encoder-only Transformer with a head that predicts the labels of tokens."""

    network: str = identity("label_tokens", "Network to train; the task must support it.")


class FillConfig(Section):
    """Settings for filling in masked tokens of a text."""

    candidates: int = continuable(5, "Number of pieces to return for each masked token.", gt=0)
