"""Settings of the encoder-only network and of filling in masked tokens."""

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, ValidationInfo, field_validator, model_validator

from foundation.section import Section, continuable, identity
from model.config.transformer import MAX_LAYERS, MAX_WIDTH, NetworkConfig, check_heads, with_preset

# Architecture of a published family; the recipe chooses sizes and dropout.
ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    "bert": {"norm": "post", "norm_epsilon": 1e-12, "activation": "gelu", "segments": 2},
}
MAX_SEGMENTS = 10_000


class EncoderOnlyConfig(NetworkConfig):
    """Size and architecture of a Transformer with an encoder only (Devlin et al. 2019).

    Default sizes are those of BERT's base model.
    """

    # Defaults are validated, too, because validators compute some of them from earlier fields.
    model_config = ConfigDict(validate_default=True)
    bias: ClassVar[bool] = True
    norm_kind: ClassVar[Literal["layer", "rms"]] = "layer"

    network: str = identity(
        "encoder_only", "Network to train, one of those that the task supports."
    )
    preset: Literal["bert"] | None = identity(
        None,
        "Family that sets the defaults of norm, norm_epsilon, activation and segments: BERT "
        "(Devlin et al. 2019).",
    )
    layers: int = identity(12, "Layers (BERT base: 12).", gt=0, le=MAX_LAYERS)
    width: int = identity(
        768, "Width of every layer's output (BERT base: 768).", gt=0, le=MAX_WIDTH
    )
    heads: int = identity(12, "Attention heads; each is width / heads wide (BERT base: 12).", gt=0)
    feed_forward_width: int | None = identity(
        None, "Inner width of the feed-forward network; default: 4 · width.", gt=0
    )
    norm: Literal["post", "pre"] = identity(
        "pre",
        "Layer normalisation of the embeddings and after each residual sum (post, BERT), or before "
        "each sub-layer and at the end (pre, Xiong et al. 2020).",
    )
    norm_epsilon: float = identity(1e-5, "Added to the variance (BERT: 1e-12).", gt=0)
    activation: Literal["relu", "gelu", "gelu_tanh"] = identity(
        "gelu",
        "Non-linearity of the feed-forward network and of heads: max(0, x), GELU (Hendrycks & "
        "Gimpel 2016; BERT), or its approximation by tanh.",
    )
    segments: int = identity(
        0,
        "Number of segment vectors, one of which is added to each token's to distinguish the parts "
        "of an input, such as the two sides of a pair (BERT: 2); 0: none.",
        ge=0,
        le=MAX_SEGMENTS,
    )
    dropout: float = identity(
        0.1, "Dropout of each sub-layer's output and of the embeddings (BERT: 0.1).", ge=0, lt=1
    )
    attention_dropout: float = identity(
        0.0, "Dropout of the attention weights (BERT: 0.1).", ge=0, lt=1
    )

    def __str__(self) -> str:
        return f"{self.layers} layer{'s' * (self.layers > 1)}, width {self.width}"

    @property
    def groups(self) -> int:
        """Number of heads of keys and values, equal to that of queries."""
        return self.heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def pre_norm(self) -> bool:
        """True if norms precede sub-layers, false if they follow residual sums."""
        return self.norm == "pre"

    @property
    def inner_width(self) -> int:
        """Inner width of the feed-forward network, after defaults were filled in."""
        assert self.feed_forward_width is not None
        return self.feed_forward_width

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, values: Any) -> Any:
        return with_preset(values, ENCODER_PRESETS)

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

    network: str = identity("label_texts", "Network to train, one of those that the task supports.")


class LabelTokensConfig(EncoderOnlyConfig):
    """Encoder-only Transformer with a head that predicts the labels of tokens."""

    network: str = identity(
        "label_tokens", "Network to train, one of those that the task supports."
    )


class FillConfig(Section):
    """Settings for filling in masked tokens of a text."""

    candidates: int = continuable(5, "Number of pieces to return for each masked token.", gt=0)
