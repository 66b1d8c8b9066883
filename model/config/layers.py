"""Layer settings that all networks have, under the same names.

    width, heads, groups, head_width          of attention; groups: number of key and value heads
    inner_width, activation                   of the feed-forward network
    pre_norm, norm_kind, norm_epsilon         position and kind of norms
    bias, dropout, attention_dropout

A setting may be a recipe's field in one network, and derived or constant in another.
"""

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import ModelConfig

LayersConfig = ModelConfig | DecoderOnlyConfig | EncoderOnlyConfig
