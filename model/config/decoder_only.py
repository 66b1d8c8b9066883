"""Settings of the decoder-only network and of sampling."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from foundation.section import Section, continuable, identity
from model.config.transformer import (
    MAX_LAYERS,
    MAX_WIDTH,
    ROTARY_BASE,
    SingleStackConfig,
    check_heads,
    check_rotation,
)

# Architectures of two published families; the recipe chooses sizes and dropout.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "positions": "learned",
        "norm_kind": "layer",
        "norm_epsilon": 1e-5,
        "activation": "gelu_tanh",
        "bias": True,
        "tie_embeddings": True,
    },
    "llama": {
        "positions": "rotary",
        "norm_kind": "rms",
        "norm_epsilon": 1e-6,
        "activation": "swiglu",
        "bias": False,
        "tie_embeddings": False,
    },
}
GATED_MULTIPLE = 32  # SwiGLU's default inner width is a multiple of this


class DecoderOnlyConfig(SingleStackConfig):
    """Size and architecture of a Transformer with a decoder only (Radford et al. 2018).

    Layers are pre-norm, followed by a last norm. Default sizes are those of GPT-2's smallest model.
    """

    presets = PRESETS
    in_order_of_use: ClassVar[bool] = True
    pre_norm: ClassVar[bool] = True

    network: str = identity("decoder_only", "Network to train; the task must support it.")
    preset: Literal["gpt2", "llama"] | None = identity(
        None,
        "Family that sets the defaults of positions, norm_kind, norm_epsilon, activation, bias and "
        "tie_embeddings: GPT-2 (Radford et al. 2019) or Llama (Touvron et al. 2023).",
    )
    layers: int = identity(12, "Number of layers (GPT-2: 12).", gt=0, le=MAX_LAYERS)
    width: int = identity(
        768, "Width of every layer's output, d_model (GPT-2: 768).", gt=0, le=MAX_WIDTH
    )
    heads: int = identity(
        12, "Number of attention heads; each has the size width / heads (GPT-2: 12).", gt=0
    )
    key_value_heads: int | None = identity(
        None,
        "Number of heads of keys and values. Each is shared by heads / key_value_heads heads of "
        "queries (Ainslie et al. 2023). The default is the value of heads.",
        gt=0,
    )
    positions: Literal["learned", "sinusoidal", "rotary"] = identity(
        "learned",
        "Encoding of positions. learned: a vector per position (GPT-2); sinusoidal: sines and "
        "cosines (Vaswani et al. 2017, §3.5), with token vectors multiplied by √width (§3.4); "
        "rotary: queries and keys are rotated by their position (Su et al. 2021; Llama).",
    )
    rotary_base: float = identity(
        ROTARY_BASE, "Base of the wavelengths of rotary positions (Su et al. 2021, §3.2.2).", gt=1
    )
    norm_kind: Literal["layer", "rms"] = identity(
        "layer",
        "Normalisation of activations. layer: layer normalisation (Ba et al. 2016; GPT-2); rms: "
        "division by the root mean square (Zhang & Sennrich 2019; Llama).",
    )
    norm_epsilon: float = identity(
        1e-5,
        "Constant that norms add to the variance or the mean square (GPT-2: 1e-5, Llama: 1e-6).",
        gt=0,
    )
    activation: Literal["relu", "gelu", "gelu_tanh", "swiglu"] = identity(
        "gelu_tanh",
        "Non-linearity of the feed-forward network. relu: max(0, x); gelu: GELU (Hendrycks & "
        "Gimpel 2016); gelu_tanh: approximation of GELU by tanh (GPT-2); swiglu: SiLU that gates a "
        "second projection (Shazeer 2020; Llama).",
    )
    feed_forward_width: int | None = identity(
        None,
        "Inner width of the feed-forward network. The default is 4 · width; for swiglu, which has "
        f"three matrices, it is 8/3 · width, rounded up to a multiple of {GATED_MULTIPLE}.",
        gt=0,
    )
    bias: bool = identity(
        True, "Give biases to linear layers and layer norms (GPT-2: yes, Llama: no)."
    )
    tie_embeddings: bool = identity(
        True,
        "Use the token vectors as the output matrix, too (Press & Wolf 2017; GPT-2: yes, "
        "Llama: no).",
    )
    dropout: float = identity(
        0.0,
        "Dropout rate of each sub-layer's output, and of the embeddings with their positions "
        "(GPT-2: 0.1).",
        ge=0,
        lt=1,
    )
    attention_dropout: float = identity(
        0.0, "Dropout rate of the attention weights (GPT-2: 0.1).", ge=0, lt=1
    )

    @property
    def groups(self) -> int:
        """Number of heads of keys and values, after defaults were filled in."""
        assert self.key_value_heads is not None
        return self.key_value_heads

    @field_validator("key_value_heads")
    @classmethod
    def _as_many_as_heads(cls, given: int | None, before: ValidationInfo) -> int | None:
        return before.data.get("heads") if given is None else given

    @field_validator("feed_forward_width")
    @classmethod
    def _as_wide_as_usual(cls, given: int | None, before: ValidationInfo) -> int | None:
        if given is not None or not {"width", "activation"} <= before.data.keys():
            return given
        width: int = before.data["width"]
        if before.data["activation"] != "swiglu":
            return 4 * width
        return -(-8 * width // (3 * GATED_MULTIPLE)) * GATED_MULTIPLE

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        check_heads(self.width, self.heads, self.groups)
        check_rotation(self.positions, self.rotary_base, self.heads, self.head_width)
        if self.positions == "sinusoidal" and self.width % 2:
            raise ValueError(
                f"model.positions is sinusoidal and model.width is {self.width}, but sines and "
                "cosines come in pairs. Choose an even width."
            )
        return self


class SamplingConfig(Section):
    """Settings of sampling, which continues a text token by token."""

    max_new_tokens: int = continuable(128, "Maximum number of tokens of a continuation.", gt=0)
    temperature: float = continuable(
        1.0, "Divisor of the logits; 0 always takes the most probable token (greedy).", ge=0
    )
    top_k: int = continuable(
        0,
        "Number of most probable tokens to draw from (Fan et al. 2018); 0 means all tokens.",
        ge=0,
    )
    top_p: float = continuable(
        1.0,
        "Draw only from the smallest set of most probable tokens whose total probability reaches "
        "this value, after temperature and top_k (nucleus sampling, Holtzman et al. 2020); 1 means "
        "all tokens.",
        gt=0,
        le=1,
    )
    seed: int = continuable(
        0,
        "Seed that, together with a prompt's number, determines the prompt's random numbers.",
        ge=0,
    )
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = continuable(
        (), "Texts that end a continuation when they appear."
    )
