"""Translators with untrained networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.config.transformer import ModelConfig
from model.networks.transformer import Transformer
from transloom.inference.translator import Translator


@pytest.fixture(scope="session")
def untrained(untrained_run) -> Translator:
    """Return the translator of a run without training."""
    return Translator.load(untrained_run.path)


@pytest.fixture
def translator_of(untrained) -> Callable[..., Translator]:
    """Return a translator with a network of different settings and random weights."""

    def build(seed: int = 0, **settings: Any) -> Translator:
        small = {"encoder_layers": 2, "decoder_layers": 2, "width": 32, "heads": 4}
        torch.manual_seed(seed)
        config = ModelConfig(**{**small, "feed_forward_width": 48, **settings})
        model = Transformer(config, untrained.model.vocabulary)
        return Translator(model, untrained._tokenizers, untrained.decoding, untrained.checkpoint)

    return build
