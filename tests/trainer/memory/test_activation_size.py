"""The bound of activation memory, compared with what passes through real networks take."""

import pytest
import torch

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig
from model.config.transformer import AttentionBackend, ModelConfig
from model.flops import BatchSizes
from model.heads.masked_head import MaskedLanguageModel
from model.losses.loss import CrossEntropy
from model.losses.r_drop import RDrop
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary
from trainer.memory.activation_size import activation_bytes
from trainer.process import host_memory

ROWS, LENGTH, VOCABULARY = 32, 64, 500
TOKENS = ROWS * LENGTH
SMALL = {"width": 64, "heads": 4, "dropout": 0.1}
LOSS = CrossEntropy(0.1)
MATMUL = AttentionBackend.MATMUL


def peak_bytes(model, *inputs):
    """Return the peak memory of forward and backward beyond what the process had before."""
    host_memory.release_freed_memory()
    host_memory.restart_peak()
    before = host_memory.resident_bytes()
    sums = model(*inputs)
    sums[0].backward()
    return host_memory.peak_resident_bytes() - before


def ids(*shape):
    return torch.randint(4, VOCABULARY, shape)


def encoder_decoder(attention=None, loss=LOSS, **settings):
    settings = {"encoder_layers": 3, "decoder_layers": 3, "feed_forward_width": 256, **settings}
    config = ModelConfig(**SMALL, **settings)
    model = Transformer(config, Vocabulary(VOCABULARY, VOCABULARY, 0, 1, 2), attention)
    sizes = BatchSizes(TOKENS, TOKENS * LENGTH, TOKENS, TOKENS * LENGTH, TOKENS * LENGTH, TOKENS)
    return config, sizes, model, [*(ids(ROWS, LENGTH) for _ in range(3)), loss]


def decoder_only(attention=None, **settings):
    config = DecoderOnlyConfig(layers=6, **SMALL, **settings)
    model = DecoderOnly(config, VOCABULARY, 0, LENGTH, attention)
    parts = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    sizes = BatchSizes(TOKENS, TOKENS * LENGTH, outputs=TOKENS)
    return config, sizes, model, [ids(ROWS, LENGTH), ids(ROWS, LENGTH), parts, LOSS]


def masked(attention=None, **settings):
    config = EncoderOnlyConfig(layers=6, **SMALL, **settings)
    model = MaskedLanguageModel(config, VOCABULARY, LENGTH, attention)
    zeros = torch.zeros(ROWS, LENGTH, dtype=torch.int64)
    positions = torch.arange(LENGTH).expand(ROWS, -1)
    sizes = BatchSizes(TOKENS, TOKENS * LENGTH, outputs=TOKENS)
    rows = [ids(ROWS, LENGTH), zeros, positions, zeros]
    return config, sizes, model, [*rows, torch.arange(TOKENS), ids(TOKENS), LOSS]


@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (encoder_decoder, {}),
        (encoder_decoder, {"attention": MATMUL, "attention_dropout": 0.1, "norm": "pre"}),
        (encoder_decoder, {"activation": "swiglu", "norm_kind": "rms", "positions": "rotary"}),
        (encoder_decoder, {"attention": AttentionBackend.VARLEN}),
        (encoder_decoder, {"loss": RDrop(0.1, 5.0), "attention": MATMUL}),
        (decoder_only, {"preset": "llama"}),
        (decoder_only, {"preset": "gpt2", "attention": MATMUL, "attention_dropout": 0.1}),
        (masked, {"preset": "bert"}),
        (masked, {"preset": "bert", "attention": MATMUL}),
    ],
)
def test_a_pass_takes_less_than_the_bound_and_more_than_a_fiftieth_of_it(network, settings):
    config, sizes, model, inputs = network(**settings)
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    bound = activation_bytes(config, sizes, VOCABULARY)
    taken = peak_bytes(model, *inputs) - weights  # without the gradients
    assert 0.02 * bound < taken < bound
