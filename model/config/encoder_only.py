"""The settings of the encoder-only network and of how masked tokens are filled in."""

from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, ValidationInfo, field_validator, model_validator

from foundation.section import Section, continuable, identity
from model.config.transformer import MAX_LAYERS, MAX_WIDTH, NetworkConfig, check_heads, with_preset

# The form of a published family; sizes and dropout are the recipe's.
ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    "bert": {"norm": "post", "norm_epsilon": 1e-12, "activation": "gelu", "segments": 2},
}
MAX_SEGMENTS = 10_000


class EncoderOnlyConfig(NetworkConfig):
    """Size and form of a Transformer that has an encoder alone (Devlin et al. 2019).

    Sizes that are not given are those of BERT's base model.
    """

    # Widths that are not given follow from others, in the order of the fields.
    model_config = ConfigDict(validate_default=True)
    bias: ClassVar[bool] = True
    norm_kind: ClassVar[Literal["layer", "rms"]] = "layer"

    network: str = identity("encoder_only", "Which network, of those that the task can train.")
    preset: Literal["bert"] | None = identity(
        None,
        "Gives norm, norm_epsilon, activation and segments the values of BERT (Devlin et al. "
        "2019) where the recipe has none.",
    )
    layers: int = identity(12, "Layers (BERT base: 12).", gt=0, le=MAX_LAYERS)
    width: int = identity(
        768, "Width of every layer's output (BERT base: 768).", gt=0, le=MAX_WIDTH
    )
    heads: int = identity(12, "Attention heads; each is width / heads wide (BERT base: 12).", gt=0)
    feed_forward_width: int | None = identity(
        None, "Inner width of the feed-forward network; none given: 4 · width.", gt=0
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
        "Vectors that tell the parts of an input apart, such as the two sides of a pair, one of "
        "which is added to each token's (BERT: 2); 0: none.",
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
        """Heads of keys and values: as many as of queries."""
        return self.heads

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def pre_norm(self) -> bool:
        """True if norms come before sub-layers, false if after residual sums."""
        return self.norm == "pre"

    @property
    def inner_width(self) -> int:
        """Inner width of the feed-forward network, as a number that is always known."""
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
    """The same Transformer with a head that tells a text's label, from its first token."""

    network: str = identity("label_texts", "Which network, of those that the task can train.")


class LabelTokensConfig(EncoderOnlyConfig):
    """The same Transformer with a head that tells the labels of tokens."""

    network: str = identity("label_tokens", "Which network, of those that the task can train.")


class FillConfig(Section):
    """How masked tokens of a text are filled in."""

    candidates: int = continuable(5, "Pieces that are named for each masked token.", gt=0)
