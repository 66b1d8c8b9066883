"""Fixtures: masked models and language models with random weights."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.large_weights import make_weights_large
from support.tasks import masked_values

from cluster.recipe import Recipe
from data_pipeline.config.text import TEXT
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.preparation.prepare import prepare
from data_pipeline.tokenizers.tokenizer import Tokenizer, load_tokenizers
from model.config.decoder_only import DecoderOnlyConfig, SamplingConfig
from model.config.encoder_only import EncoderOnlyConfig, FillConfig
from model.heads.masked_head import MaskedLanguageModel
from model.networks.decoder_only import DecoderOnly
from transloom.inference.mask_filler import MaskFiller
from transloom.inference.text_generator import TextGenerator
from transloom.inference.trained_network import TrainedNetwork

SMALL = {"layers": 2, "width": 32, "heads": 4}
CONTEXT = 40


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Return a tokenizer trained on the phrase book, with a mask piece."""
    recipe = Recipe.of(masked_values(tmp_path_factory.mktemp("masked") / "dataset"))
    prepare(recipe.data_settings, lambda progress: None)
    return load_tokenizers(*open_dataset(recipe.data))[TEXT]


@pytest.fixture
def filler_of(tokenizer: Tokenizer) -> Callable[..., MaskFiller]:
    """Return a function that builds a masked model with given settings."""

    def build(**form: Any) -> MaskFiller:
        torch.manual_seed(0)
        config = EncoderOnlyConfig(**{**SMALL, **form})
        network = MaskedLanguageModel(config, tokenizer.vocabulary_size, CONTEXT)
        return MaskFiller(_trained(network, tokenizer, FillConfig()))

    return build


@pytest.fixture
def generator_of(tokenizer: Tokenizer) -> Callable[..., TextGenerator]:
    """Return a function that builds a language model with given settings."""

    def build(**form: Any) -> TextGenerator:
        torch.manual_seed(0)
        config = DecoderOnlyConfig(**{**SMALL, **form})
        size = tokenizer.vocabulary_size
        network = DecoderOnly(config, size, tokenizer.pad_id, CONTEXT)
        return TextGenerator(_trained(network, tokenizer, SamplingConfig()))

    return build


def _trained(network: Any, tokenizer: Tokenizer, decoding: Any) -> Any:
    """Return the network with large weights, so that probabilities differ, and all biases set."""
    return TrainedNetwork(
        make_weights_large(network, 6),
        {TEXT: tokenizer},
        recipe=SimpleNamespace(decoding=decoding, task="", data=None),
        checkpoint=SimpleNamespace(path=Path("no-run/checkpoints/step-00000007")),
        weights=None,
        passed_over=[],
    )
