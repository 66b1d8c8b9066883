"""Counted operations, compared with those that torch counts while the networks compute."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from model.config.decoder_only import DecoderOnlyConfig
from model.config.encoder_only import EncoderOnlyConfig, LabelTextsConfig, LabelTokensConfig
from model.config.sentence_encoder import SentenceEncoderConfig
from model.config.transformer import AttentionBackend, ModelConfig
from model.flops import (
    BatchSizes,
    Training,
    decoder_only_flops,
    encoder_decoder_flops,
    label_flops,
    masked_flops,
    sentence_flops,
)
from model.heads.label_head import LabelModel
from model.heads.masked_head import MaskedLanguageModel
from model.heads.sentence_encoder import SentenceEncoder
from model.losses.loss import BIAS_COLUMNS, CrossEntropy
from model.losses.r_drop import RDrop
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary

PIECES, LABELS, CONTEXT = 50, 7, 12
ROWS, SOURCE, TARGET = 4, 9, 6
SMALL = {"width": 16, "heads": 4, "feed_forward_width": 24, "dropout": 0.1}
TEXTS = torch.randint(3, PIECES, (ROWS, SOURCE), generator=torch.Generator().manual_seed(1))
TOLD = torch.tensor([1, 4, 11, 12, 20])  # positions with a label, in the flattened rows


class Case:
    """A network, a batch for it without padding, and its sizes."""

    def __init__(self, network, count, inputs, sizes, loss=None):
        self.network = network.train()
        self.count = count  # a function of training settings
        self.inputs = inputs
        self.sizes = sizes
        self.loss = loss or CrossEntropy(0.1)

    def counted(self, training=None):
        """Return the FLOPs that the module counts for the batch."""
        return self.count(training or Training()).of(self.sizes, self.sizes)

    def measured(self):
        """Return the FLOPs that torch counts while the network computes."""
        with FlopCounterMode(display=False) as counter:
            self.network(*self.inputs, self.loss)[0].backward()
        return counter.get_total_flops()


def encoder_decoder(loss=None, **changes):
    config = ModelConfig(**{"encoder_layers": 2, "decoder_layers": 2, **SMALL, **changes})
    torch.manual_seed(0)
    target = TEXTS[:, :TARGET]
    sizes = BatchSizes(
        tokens=ROWS * SOURCE,
        pairs=ROWS * SOURCE**2,
        target_tokens=ROWS * TARGET,
        target_pairs=ROWS * TARGET**2,
        cross_pairs=ROWS * SOURCE * TARGET,
        outputs=ROWS * TARGET,
    )
    return Case(
        Transformer(config, Vocabulary(PIECES, PIECES, 0, 1, 2)),
        lambda training: encoder_decoder_flops(config, PIECES, training),
        (TEXTS, target, target),
        sizes,
        loss,
    )


def decoder_only(**changes):
    config = DecoderOnlyConfig(**{"layers": 2, **SMALL, **changes})
    torch.manual_seed(0)
    sizes = BatchSizes(tokens=ROWS * SOURCE, pairs=ROWS * SOURCE**2, outputs=ROWS * SOURCE)
    return Case(
        DecoderOnly(config, PIECES, 0, CONTEXT),
        lambda training: decoder_only_flops(config, PIECES, training),
        (TEXTS, TEXTS, torch.zeros_like(TEXTS)),
        sizes,
    )


def encoder_only(kind, **changes):
    kinds = {
        "masked": (EncoderOnlyConfig, MaskedLanguageModel, masked_flops, PIECES),
        "texts": (LabelTextsConfig, LabelModel, label_flops, LABELS),
        "tokens": (LabelTokensConfig, LabelModel, label_flops, LABELS),
    }
    config_class, network_class, count, classes = kinds[kind]
    config = config_class(**{"layers": 2, **SMALL, **changes})
    torch.manual_seed(0)
    sizes = (PIECES, CONTEXT) if kind == "masked" else (PIECES, CONTEXT, LABELS)
    zeros, places = torch.zeros_like(TEXTS), torch.arange(SOURCE).expand(ROWS, -1)
    return Case(
        network_class(config, *sizes),
        lambda training: count(config, classes, training),
        (TEXTS, zeros, places, zeros, TOLD, TOLD % LABELS),
        BatchSizes(tokens=ROWS * SOURCE, pairs=ROWS * SOURCE**2, outputs=len(TOLD)),
    )


def sentences(**changes):
    config = SentenceEncoderConfig(**{"layers": 2, **SMALL, **changes})
    torch.manual_seed(0)
    zeros, places = torch.zeros_like(TEXTS), torch.arange(SOURCE).expand(ROWS, -1)
    return Case(
        SentenceEncoder(config, PIECES, CONTEXT),
        lambda training: sentence_flops(config, training),
        (TEXTS, zeros, places, zeros),
        BatchSizes(tokens=ROWS * SOURCE, pairs=ROWS * SOURCE**2, cosines=(ROWS // 2) ** 2),
    )


CASES = {
    "transformer": encoder_decoder,
    "pre-norm": lambda: encoder_decoder(norm="pre"),
    "swiglu, rotary, rms": lambda: encoder_decoder(
        activation="swiglu", positions="rotary", norm_kind="rms", key_value_heads=2
    ),
    "one head of keys": lambda: encoder_decoder(key_value_heads=1),
    "separate embeddings": lambda: encoder_decoder(share_embeddings="none"),
    "gpt2": lambda: decoder_only(preset="gpt2"),
    "llama": lambda: decoder_only(preset="llama", key_value_heads=2),
    "sinusoidal": lambda: decoder_only(positions="sinusoidal"),
    "masked": lambda: encoder_only("masked"),
    "bert": lambda: encoder_only("masked", preset="bert"),
    "texts": lambda: encoder_only("texts", preset="bert"),
    "tokens": lambda: encoder_only("tokens"),
    "sentences": sentences,
}
BIASED = {"masked": PIECES, "bert": PIECES, "texts": LABELS, "tokens": LABELS}


@pytest.mark.matrix
@pytest.mark.parametrize("name", CASES)
def test_counted_operations_equal_those_that_torch_counts(name):
    case = CASES[name]()
    model, hardware = case.counted()
    assert hardware == case.measured()
    # The output bias is computed as columns of its matrix, which the model itself does not need.
    assert hardware - model == 3 * 2 * BIAS_COLUMNS * BIASED.get(name, 0) * len(TOLD)


@pytest.mark.matrix
@pytest.mark.parametrize("name", CASES)
def test_recomputed_activations_count_only_as_hardware_operations(name):
    case = CASES[name]()
    case.network.checkpoint_activations(True)
    again = case.counted(Training(checkpoints_activations=True))
    assert again.hardware == case.measured()
    assert again.hardware > case.counted().hardware
    assert again.model == case.counted().model


def test_the_last_product_of_a_recomputed_layer_without_dropout_is_counted_too():
    """Its result is not needed: torch stops before the product, but the count includes it."""
    case = decoder_only(dropout=0.0)
    case.network.checkpoint_activations(True)
    counted = case.counted(Training(checkpoints_activations=True)).hardware
    last_products = 2 * 2 * SMALL["width"] * SMALL["feed_forward_width"] * ROWS * SOURCE
    assert counted - case.measured() == last_products


def test_r_drop_computes_twice_the_operations():
    one, two = encoder_decoder(), encoder_decoder(RDrop(0.1, 5.0))
    two.inputs = tuple(torch.cat([rows, rows]) for rows in two.inputs)
    assert two.measured() == 2 * one.counted().hardware


def test_recomputed_products_of_fused_attention_are_not_counted():
    """The backward pass computes QKᵀ again, which torch counts and this module does not."""
    ops = torch.ops.aten
    mapping = {
        ops._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
            q, k, v
        ),
        ops._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    case = decoder_only()
    fused = DecoderOnly(case.network.config, PIECES, 0, CONTEXT, AttentionBackend.SDPA)
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        fused(*case.inputs, case.loss)[0].backward()
    scores = 2 * 2 * SMALL["width"] * ROWS * SOURCE**2
    assert counter.get_total_flops() - case.counted().hardware == scores


def test_model_operations_equal_the_formula_of_palm():
    """6 N + 12 L H Q T for each token, where N excludes the embedding table."""
    case = decoder_only(tie_embeddings=False, bias=False)
    matrices = sum(
        p.numel()
        for n, p in case.network.named_parameters()
        if p.dim() == 2 and n not in ("embedding.weight", "positions.weight")
    )
    layers, tokens = 2, ROWS * SOURCE
    expected = tokens * (6 * matrices + 12 * layers * SMALL["width"] * SOURCE)
    assert case.counted().model == expected


FAMILIES = ("transformer", "pre-norm", "llama", "gpt2", "masked", "bert", "texts", "sentences")


@pytest.mark.matrix
@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=4)
@given(data=st.data())
def test_operations_with_frozen_weights_equal_those_that_torch_counts(name, data):
    case = CASES[name]()
    parameters = dict(case.network.named_parameters())
    modules = sorted({n.rpartition(".")[0] for n in parameters} - {""})
    # Few modules are trained, so that many adjacent layers are frozen.
    chosen = data.draw(st.sets(st.sampled_from(modules), min_size=1, max_size=3))
    trained = {n for n in parameters if n.rpartition(".")[0] in chosen}
    if data.draw(st.booleans(), label="biases alone"):
        trained = {n for n in trained if parameters[n].dim() == 1} or trained
    for n, parameter in parameters.items():
        parameter.requires_grad_(n in trained)
    again = data.draw(st.booleans(), label="activations computed again")
    case.network.checkpoint_activations(again)
    counted = case.counted(Training(trained, again))
    assert counted.hardware == case.measured()
    assert counted.model <= case.counted().model


@pytest.mark.parametrize("part", ["encoder.", "decoder.last_norm.", "target_embedding."])
def test_operations_of_one_trained_part_with_recomputation_equal_those_that_torch_counts(part):
    """A frozen decoder is recomputed if the encoder's gradients pass through it."""
    case = encoder_decoder(norm="pre", share_embeddings="decoder")
    parameters = dict(case.network.named_parameters())
    trained = {name for name in parameters if name.startswith(part)}
    assert trained
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    case.network.checkpoint_activations(True)
    assert case.counted(Training(trained, True)).hardware == case.measured()


@pytest.mark.matrix
@pytest.mark.parametrize("name", FAMILIES)
def test_operations_of_one_trained_module_outside_the_layers_equal_torchs(name):
    case = CASES[name]()
    parameters = dict(case.network.named_parameters())
    modules = {n.rpartition(".")[0] for n in parameters if "layers." not in n} - {""}
    assert modules
    for module in sorted(modules):
        trained = {n for n in parameters if n.rpartition(".")[0] == module}
        for n, parameter in parameters.items():
            parameter.requires_grad_(n in trained)
        assert case.counted(Training(trained)).hardware == case.measured(), module


@pytest.mark.parametrize(
    ("name", "norm"), [("pre-norm", "decoder.last_norm"), ("masked", "head.norm")]
)
def test_a_trained_norm_before_the_output_needs_one_more_product(name, norm):
    """This product is the gradient of the norm's result; the loss always computes it."""
    case = CASES[name]()
    trained = {n for n, _ in case.network.named_parameters() if n.startswith(f"{norm}.")}
    assert trained
    frozen = case.counted(Training(frozenset())).model
    product = 2 * SMALL["width"] * PIECES * case.sizes.outputs
    assert case.counted(Training(trained)).model == frozen + product


def test_padding_adds_only_to_hardware_operations():
    flops = encoder_decoder().count(Training())
    real = BatchSizes(10, 30, 8, 20, 25, 8)
    padded = BatchSizes(16, 64, 12, 48, 60, 8)
    assert flops.of(real, padded).model == flops.of(real, real).model
    assert flops.of(real, padded).hardware == flops.of(padded, padded).hardware
    assert flops.of(real, padded).hardware > flops.of(real, real).hardware
