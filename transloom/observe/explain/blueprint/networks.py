"""Create the figure of a recipe's network before training, or of an existing network."""

from dataclasses import dataclass

import torch
from torch import nn

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import ModelConfig, NetworkConfig
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary
from run_store.errors import RunMismatchError
from transloom.observe.explain.blueprint.boxes import Blueprint
from transloom.observe.explain.blueprint.decoder_only import decoder_only
from transloom.observe.explain.blueprint.encoder_decoder import encoder_decoder
from transloom.observe.explain.blueprint.encoder_only import encoder_only
from transloom.observe.explain.blueprint.parts import Shapes


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data that determine a network's shapes.

    A network with one stack uses only the source vocabulary.

    Attributes:
        source, target: numbers of pieces in the vocabularies.
        context_length: the longest sequence.
        labels: number of labels.
    """

    source: int
    target: int
    context_length: int = 0
    labels: int = 0


def blueprint_of_settings(config: NetworkConfig, sizes: Sizes) -> Blueprint:
    """Return the figure of a network, built on torch's meta device without memory for parameters.

    Raises:
        RunMismatchError: there is no figure for this kind of network.
        ModelError: settings and sizes are incompatible.
    """
    with torch.device("meta"):
        network: nn.Module
        if isinstance(config, ModelConfig):
            # Special ids are ordinary rows of the embedding, so their values do not affect the
            # shapes.
            bos = 0 if config.decoder_start == "pad" else 1
            network = Transformer(config, Vocabulary(sizes.source, sizes.target, 0, bos, 2))
        elif isinstance(config, DecoderOnlyConfig):
            network = DecoderOnly(config, sizes.source, 0, sizes.context_length)
        elif isinstance(config, SentenceEncoderConfig):
            network = SentenceEncoder(config, sizes.source, sizes.context_length)
        elif isinstance(config, LabelTextsConfig | LabelTokensConfig):
            network = LabelModel(config, sizes.source, sizes.context_length, sizes.labels)
        elif isinstance(config, EncoderOnlyConfig):
            network = MaskedLanguageModel(config, sizes.source, sizes.context_length)
        else:
            raise _no_figure(config)
    return blueprint_of_network(config, network)


def blueprint_of_network(config: NetworkConfig, network: nn.Module) -> Blueprint:
    """Return the figure of an existing network.

    Args:
        config: the settings of the network.

    Raises:
        RunMismatchError: there is no figure for this kind of network.
    """
    shapes: Shapes = {name: tuple(p.shape) for name, p in network.named_parameters()}
    if isinstance(config, ModelConfig):
        return encoder_decoder(config, shapes)
    if isinstance(config, DecoderOnlyConfig):
        return decoder_only(config, shapes)
    if isinstance(config, EncoderOnlyConfig):
        return encoder_only(config, shapes)
    raise _no_figure(config)


def _no_figure(config: NetworkConfig) -> RunMismatchError:
    return RunMismatchError(
        f"model.network is {config.network!r}, but only transformer, decoder_only, encoder_only, "
        "label_texts, label_tokens and sentence_encoder have a figure. Name a recipe or a run with "
        "one of these networks"
    )
