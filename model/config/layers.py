"""Settings that all networks have for their layers, under the same names.

    width, heads, groups, head_width          of attention, whose key and value heads are groups
    inner_width, activation                   of the feed-forward network
    pre_norm, norm_kind, norm_epsilon         where norms are, and which
    bias, dropout, attention_dropout

Some are fields of a recipe in one network, and follow from other fields or are constant in another.
A recipe's `model.norm` is the place of norms in networks with an encoder, and their kind in the
decoder-only network.
"""

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig

LayersConfig = ModelConfig | DecoderOnlyConfig | EncoderOnlyConfig
