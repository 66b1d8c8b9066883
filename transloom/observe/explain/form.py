"""Describe the properties of a network, of any family, that the texts of a page depend on."""

from dataclasses import dataclass

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig
from transloom.observe.explain.blueprint.forms import ACTIVATION_NAMES, NORMS


@dataclass(frozen=True)
class Form:
    """Sizes and variants of a network's layers.

    Attributes:
        groups: number of heads of keys and values.
        turned: True if queries and keys are rotated according to their position.
        has_biases: True if linear layers and norms have biases.
    """

    width: int
    heads: int
    groups: int
    inner_width: int
    pre_norm: bool
    norm_kind: str
    activation: str
    turned: bool
    has_biases: bool

    @property
    def head_width(self) -> int:
        """Number of dimensions of a head."""
        return self.width // self.heads

    @property
    def norm(self) -> str:
        """Name of the norm in texts."""
        return NORMS[self.norm_kind]

    @property
    def bend(self) -> str:
        """Name of the activation between the matrices of the feed-forward network."""
        return "the gate" if self.is_gated else ACTIVATION_NAMES[self.activation]

    @property
    def is_gated(self) -> bool:
        """True if the feed-forward network is a SwiGLU."""
        return self.activation == "swiglu"


def form_of(config: ModelConfig | DecoderOnlyConfig | EncoderOnlyConfig) -> Form:
    """Return the form of a network with these settings."""
    norm_kind, pre_norm, turned, has_biases = "layer", True, False, True
    if isinstance(config, ModelConfig):
        norm_kind, pre_norm = config.norm_kind, config.norm == "pre"
        inner_width, turned = config.feed_forward_width, config.positions == "rotary"
    elif isinstance(config, DecoderOnlyConfig):
        norm_kind, inner_width = config.norm, config.inner_width
        turned, has_biases = config.positions == "rotary", config.bias
    else:
        pre_norm, inner_width = config.norm == "pre", config.inner_width
    return Form(
        width=config.width,
        heads=config.heads,
        groups=config.groups,
        inner_width=inner_width,
        pre_norm=pre_norm,
        norm_kind=norm_kind,
        activation=config.activation,
        turned=turned,
        has_biases=has_biases,
    )
