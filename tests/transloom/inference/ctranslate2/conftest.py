"""Fixtures: tokenizers, and small random networks that end their sentences."""

import pytest
import torch
from support.large_weights import make_weights_large

from data_pipeline.config.data import TokenizerConfig
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from model.config.transformer import ModelConfig
from model.networks.transformer import Transformer, Vocabulary

SENTENCES = [
    "je suis étudiant",
    "",
    "elle sera journaliste demain",
    "non",
    "il est là",
    "nous serons à la gare demain matin avec toute la famille",
]
TAG = "<2en>"


@pytest.fixture(scope="session")
def tokenizers():
    """Return a tokenizer for each side, with vocabularies of different sizes."""
    french = [*SENTENCES, "vous êtes là", "la gare est grande"] * 3
    english = ["i am a student", "she will be a journalist tomorrow", "no", "the station"] * 3
    return {
        "src": SentencePieceTokenizer.train(
            french, TokenizerConfig(vocabulary_size=60), "source.model", [TAG]
        ),
        "tgt": SentencePieceTokenizer.train(
            english, TokenizerConfig(vocabulary_size=48), "target.model"
        ),
    }


@pytest.fixture(scope="session")
def joint(tokenizers):
    return {"src": tokenizers["src"], "tgt": tokenizers["src"]}


@pytest.fixture(scope="session")
def network_for():
    """Return a function that builds a random network with translations of about ten tokens.

    The first component of the last layer's output is always 1. Its column of the output matrix
    makes EOS likely, and PAD and BOS, which trained networks never write, unlikely.
    """

    def build(tokenizers, seed=0, **settings):
        source, target = tokenizers["src"], tokenizers["tgt"]
        small = {"encoder_layers": 2, "decoder_layers": 2, "width": 32, "heads": 4}
        small |= {"feed_forward_width": 48, "dropout": 0.1} | settings
        with_padding = small.get("decoder_start") == "pad"
        torch.manual_seed(seed)
        vocabulary = Vocabulary(
            source.vocabulary_size,
            target.vocabulary_size,
            target.pad_id,
            target.pad_id if with_padding else target.bos_id,
            target.eos_id,
        )
        network = make_weights_large(Transformer(ModelConfig(**small), vocabulary), 2, moved=0.2)
        network.eval()
        with torch.no_grad():
            last = network.decoder.last_norm
            if not hasattr(last, "bias"):
                last = network.decoder.layers[-1].feed_forward_norm
            last.weight[0], last.bias[0] = 0, 1
            network.output_weight[:, 0] = 0
            network.output_weight[target.eos_id, 0] = 3
            network.output_weight[[target.pad_id, target.bos_id], 0] = -20
        return network

    return build
