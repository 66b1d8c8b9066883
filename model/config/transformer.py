"""Settings of the encoder-decoder network and of its search for a translation."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, model_validator

from foundation.section import Section, continuable, identity

# These limits exceed the sizes of real networks, so a larger value in a checkpoint means that the
# checkpoint is corrupt. Without the limits, building such a network would exhaust memory before the
# checkpoint's tensors are compared.
MAX_LAYERS = 1_000
MAX_WIDTH = 1_000_000
MAX_BEAM_SIZE = 1_000
MAX_LENGTH_PENALTY = 10.0  # keeps the penalty of any length finite
ROTARY_BASE = 10000.0


class AttentionBackend(StrEnum):
    """Implementations of attention with equal results."""

    SDPA = "sdpa"  # torch's fused kernels
    MATMUL = "matmul"  # two matrix products and a softmax
    VARLEN = "varlen"  # trains on packed sentences: a flash kernel on CUDA, a loop on CPUs


class NetworkConfig(Section):
    """Settings that every network has.

    Attributes:
        in_order_of_use: True if a layer registers its parameters in the order of the forward pass,
            norms before their sub-layers and output projections last. The order determines the
            initial random weights, so it must never change.
    """

    in_order_of_use: ClassVar[bool] = False

    network: str = identity("transformer", "Network to train; the task must support it.")

    def __str__(self) -> str:
        """Return a short description of the size, for the first line of a run."""
        return self.network


class SingleStackConfig(NetworkConfig):
    """Base of the settings of networks with a single stack of layers, without fields.

    A base class with fields would change the order of fields in stored recipes.

    Attributes:
        presets: values of fields by preset, which are defaults of these fields.
    """

    # Defaults are validated, too, because validators compute some of them from earlier fields.
    model_config = ConfigDict(validate_default=True)
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    if TYPE_CHECKING:
        layers: int
        width: int
        heads: int
        feed_forward_width: int | None

    def __str__(self) -> str:
        return f"{self.layers} layer{'s' * (self.layers > 1)}, width {self.width}"

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def inner_width(self) -> int:
        """Inner width of the feed-forward network, after defaults were filled in."""
        assert self.feed_forward_width is not None
        return self.feed_forward_width

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("preset"), str):
            return values
        return {**cls.presets.get(values["preset"], {}), **values}


def check_heads(width: int, heads: int, groups: int) -> None:
    """Raise ValueError unless heads divide the width, and key and value heads divide the heads."""
    if width % heads:
        raise ValueError(
            f"model.width is {width}, which model.heads = {heads} does not divide. "
            "Choose a width that is a multiple of the number of heads."
        )
    if heads % groups:
        raise ValueError(
            f"model.heads is {heads}, which model.key_value_heads = {groups} does "
            "not divide. Choose a number of heads that is a multiple of key_value_heads."
        )


def check_rotation(positions: str, base: float, heads: int, head_width: int) -> None:
    """Raise ValueError if heads cannot be rotated, or a base is set without rotary positions."""
    if positions == "rotary" and head_width % 2:
        raise ValueError(
            f"model.positions is rotary and each of {heads} heads is {head_width} "
            "wide, but a rotation needs pairs of numbers. Choose model.width and model.heads "
            "so that width / heads is even."
        )
    if positions != "rotary" and base != ROTARY_BASE:
        raise ValueError(
            f"model.rotary_base is {base:g}, but model.positions is {positions}, which rotates "
            "nothing. Set positions=rotary, or omit rotary_base."
        )


class ModelConfig(NetworkConfig):
    """Size and architecture of the Transformer of Vaswani et al. 2017, "Attention Is All You Need".

    The defaults are those of the paper. Some options are from later networks: rotary positions,
    fewer heads of keys and values, norms without a mean (RMS), and gated feed-forward networks.
    """

    bias: ClassVar[bool] = True

    encoder_layers: int = identity(
        6, "Number of encoder layers, N in the paper (§3.1; base: 6).", gt=0, le=MAX_LAYERS
    )
    decoder_layers: int = identity(
        6, "Number of decoder layers, N in the paper (§3.1; base: 6).", gt=0, le=MAX_LAYERS
    )
    width: int = identity(
        512, "Width of every layer's output, d_model (§3.1; base: 512).", gt=0, le=MAX_WIDTH
    )
    feed_forward_width: int = identity(
        2048, "Inner width of the feed-forward network, d_ff (§3.3).", gt=0, le=MAX_WIDTH
    )
    heads: int = identity(
        8, "Number of attention heads, h (§3.2.2); each has the size width / heads.", gt=0
    )
    dropout: float = identity(
        0.1,
        "Dropout rate of each sub-layer's output, and of the embeddings "
        "with their positions, P_drop (§5.4; base: 0.1).",
        ge=0,
        lt=1,
    )
    attention_dropout: float = identity(
        0.0, "Dropout rate of the attention weights. The paper has none.", ge=0, lt=1
    )
    norm: Literal["post", "pre"] = identity(
        "post",
        "Position of layer normalisation. post: after each residual sum (the paper's §3.1); "
        "pre: before each sub-layer and at the end of each stack (Xiong et al. 2020).",
    )
    share_embeddings: Literal["all", "decoder", "none"] = identity(
        "all",
        "Embeddings that share one matrix. all: source, target and output (the paper's §3.4; "
        "requires a joint vocabulary); decoder: target and output; none: no sharing.",
    )
    activation: Literal["relu", "gelu", "silu", "swiglu"] = identity(
        "relu",
        "Non-linearity of the feed-forward network. relu: max(0, x) (the paper's §3.3); gelu: GELU "
        "(Hendrycks & Gimpel 2016); silu: SiLU, which Marian calls swish; swiglu: SiLU that gates "
        "a second projection, with a third matrix of feed_forward_width (Shazeer 2020).",
    )
    output_bias: bool = identity(
        False, "Add a bias to the logits. The paper has none; Marian's models have one."
    )
    decoder_start: Literal["bos", "pad"] = identity(
        "bos", "First token of the decoder's input: BOS, or padding as in Marian's models."
    )
    positions: Literal["sinusoidal", "rotary"] = identity(
        "sinusoidal",
        "Encoding of positions. sinusoidal: sines and cosines are added to the embeddings (the "
        "paper's §3.5); rotary: queries and keys of self-attention, but not of cross-attention, "
        "are rotated by their position (Su et al. 2021).",
    )
    rotary_base: float = identity(
        ROTARY_BASE, "Base of the wavelengths of rotary positions (Su et al. 2021, §3.2.2).", gt=1
    )
    key_value_heads: int | None = identity(
        None,
        "Number of heads of keys and values, in self- and cross-attention. Each is shared by heads "
        "/ key_value_heads heads of queries (Ainslie et al. 2023). The default is the value of "
        "heads.",
        gt=0,
    )
    norm_kind: Literal["layer", "rms"] = identity(
        "layer",
        "Kind of normalisation. layer: layer normalisation (Ba et al. 2016; the paper's); rms: "
        "division by the root mean square (Zhang & Sennrich 2019). `norm` sets its position.",
    )
    norm_epsilon: float = identity(
        1e-5, "Constant that norms add to the variance or the mean square (torch: 1e-5).", gt=0
    )

    def __str__(self) -> str:
        return f"{self.encoder_layers}+{self.decoder_layers} layers, width {self.width}"

    @property
    def head_width(self) -> int:
        """Width of one head, d_k = d_v in the paper."""
        return self.width // self.heads

    @property
    def groups(self) -> int:
        """Number of heads of keys and values, after defaults were filled in."""
        return self.heads if self.key_value_heads is None else self.key_value_heads

    @property
    def inner_width(self) -> int:
        """Inner width of the feed-forward network."""
        return self.feed_forward_width

    @property
    def pre_norm(self) -> bool:
        """True if norms precede sub-layers, false if they follow residual sums."""
        return self.norm == "pre"

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        check_heads(self.width, self.heads, self.groups)
        check_rotation(self.positions, self.rotary_base, self.heads, self.head_width)
        if self.width % 2:
            raise ValueError(
                f"model.width is {self.width}, but sines and cosines of the positions come in "
                "pairs (§3.5). Choose an even width."
            )
        return self


GREEDY = "greedy"


def search_label(beam_size: int, length_penalty: float) -> str:
    """Return the label of a search, for the scores of its translations: `beam 4, α 0.6`."""
    return GREEDY if beam_size == 1 else f"beam {beam_size}, α {length_penalty:g}"


class DecodingConfig(Section):
    """Settings of the search for a translation. Defaults are the paper's (§6.1)."""

    beam_size: int = continuable(
        4, "Number of hypotheses kept per sentence; 1 is greedy search.", gt=0, le=MAX_BEAM_SIZE
    )
    length_penalty: float = continuable(
        0.6,
        "α of the length penalty ((5 + length) / 6)^α that divides a "
        "hypothesis' log-probability (Wu et al. 2016, eq. 14); 0 disables the penalty.",
        ge=0,
        le=MAX_LENGTH_PENALTY,
    )
    max_length_factor: float = continuable(
        1.0,
        "Maximum number of output tokens per source token; EOS is included in both numbers.",
        ge=0,
        le=1000,
    )
    max_extra_length: int = continuable(
        50,
        "Maximum number of output tokens beyond max_length_factor · source tokens (the paper: 50).",
        ge=1,
        le=10_000,
    )
