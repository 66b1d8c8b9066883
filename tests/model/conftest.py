"""Small networks and batches for tests of the model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from support.large_weights import make_weights_large
from torch import Tensor, nn

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import AttentionBackend, ModelConfig
from model.heads.masked_head import MaskedLanguageModel
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary

PAD, BOS, EOS = 0, 2, 3


@pytest.fixture(scope="session")
def build() -> Callable[..., Transformer]:
    """Return a function that builds a small seeded network, without dropout unless given."""

    def build_model(
        seed: int = 0, pieces: int = 30, backend: AttentionBackend | None = None, **settings: Any
    ) -> Transformer:
        small = {"encoder_layers": 2, "decoder_layers": 2, "width": 32, "heads": 4}
        config = ModelConfig(**{**small, "feed_forward_width": 48, "dropout": 0.0, **settings})
        torch.manual_seed(seed)
        return Transformer(config, Vocabulary(pieces, pieces, PAD, BOS, EOS), backend)

    return build_model


def builder(make: Callable[..., nn.Module]) -> Callable[..., Any]:
    """Return a function that builds a small seeded network with large weights, to show mistakes."""

    def build_network(
        seed: int = 0,
        pieces: int = 30,
        context_length: int = 24,
        backend: AttentionBackend | None = None,
        spread: float = 8.0,
        **settings: Any,
    ) -> nn.Module:
        torch.manual_seed(seed)
        small = {"layers": 2, "width": 32, "heads": 4, **settings}
        network = make(small, pieces, context_length, backend)
        return make_weights_large(network, spread)

    return build_network


@pytest.fixture(scope="session")
def build_decoder_only() -> Callable[..., DecoderOnly]:
    return builder(
        lambda settings, pieces, *rest: DecoderOnly(
            DecoderOnlyConfig(**settings), pieces, PAD, *rest
        )
    )


@pytest.fixture(scope="session")
def build_masked() -> Callable[..., MaskedLanguageModel]:
    """Return a function that builds a network that predicts masked tokens, without dropout."""
    small = {"feed_forward_width": 48, "dropout": 0.0}
    return builder(
        lambda settings, *rest: MaskedLanguageModel(
            EncoderOnlyConfig.model_validate(small | settings), *rest
        )
    )


@pytest.fixture(scope="session")
def sentences() -> Callable[..., Tensor]:
    """Return a function that draws padded sentences of given lengths, which end with EOS."""

    def random_sentences(
        lengths: list[int], width: int = 0, pieces: int = 30, seed: int = 1
    ) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.full((len(lengths), max(width, *lengths)), PAD)
        for row, length in enumerate(lengths):
            ids[row, : length - 1] = torch.randint(4, pieces, (length - 1,), generator=generator)
            ids[row, length - 1] = EOS
        return ids

    return random_sentences


@pytest.fixture(scope="session")
def as_input() -> Callable[[Tensor], Tensor]:
    """Return a function that shifts a target to the decoder's input, which begins with BOS."""

    def shift(target_bt: Tensor) -> Tensor:
        bos = torch.full((len(target_bt), 1), BOS)
        return torch.cat([bos, target_bt[:, :-1]], dim=1)

    return shift


@pytest.fixture(scope="session")
def randomise_vectors() -> Callable[[Transformer], object]:
    """Return a function that changes biases and norms, and keeps matrices."""
    return partial(make_weights_large, spread=1)
