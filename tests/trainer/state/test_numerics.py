"""Differences that the fingerprint of numerics detects."""

import pytest
from support.recipes import tiny_recipe

from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from model.blocks.attention import SelfAttention
from model.blocks.linear import ONEDNN_FROM
from model.config.transformer import AttentionBackend
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.state import numerics
from trainer.tasks.network import build_network


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "matmul"),
        ({"precision": "bf16"}, "matmul"),
        ({"attention": "sdpa"}, "sdpa"),
        ({"precision": "bf16", "attention": "sdpa"}, "sdpa"),
        ({"attention": "varlen"}, "varlen"),
    ],
)
def test_the_kernels_of_attention_are_the_measured_ones_unless_named(settings, expected):
    fingerprint = numerics.fingerprint(EngineConfig(**settings), Placement())
    assert fingerprint["attention"] == expected


def test_its_values_are_plain():
    """The supervisor unpickles them, and a class of torch would make it import torch."""
    fingerprint = numerics.fingerprint(EngineConfig(numerics="exact"), Placement())
    assert {type(value) for value in fingerprint.values()} <= {str, int}


def test_another_backend_is_a_difference():
    ours, theirs = (
        numerics.fingerprint(EngineConfig(attention=name), Placement())
        for name in (AttentionBackend.SDPA, AttentionBackend.MATMUL)
    )
    assert numerics.differences(ours, theirs) == {"attention": ["sdpa", "matmul"]}


def test_products_of_onednn_are_named():
    fp32, bf16 = (
        numerics.fingerprint(EngineConfig(precision=name), Placement()) for name in ("fp32", "bf16")
    )
    from_where = f"oneDNN from {ONEDNN_FROM}" if "AVX512" in fp32["device"] else None
    assert fp32.get("products") == from_where
    assert "products" not in bf16  # torch takes those from oneDNN anyway


def test_a_softmax_in_another_precision_is_named():
    named = {
        (precision, attention): numerics.fingerprint(
            EngineConfig(precision=precision, attention=attention), Placement()
        ).get("softmax")
        for precision in ("fp32", "bf16")
        for attention in ("matmul", "sdpa")
    }
    assert named.pop(("bf16", "matmul")) == "fp32 for short rows"
    assert set(named.values()) == {None}


@pytest.mark.parametrize("name", [None, "matmul"])
def test_every_attention_of_the_model_is_computed_by_the_one_named(phrasebook, name):
    recipe = tiny_recipe(phrasebook).training()
    recipe = recipe.model_copy(update={"engine": EngineConfig(attention=name)})
    model = build_network(recipe, load_tokenizers(*open_dataset(recipe.data)))
    attentions = [m for m in model.modules() if isinstance(m, SelfAttention)]
    assert {m.attention.backend for m in attentions} == {name}


@pytest.mark.parametrize(
    ("capability", "precision", "device", "slow"),
    [
        ("AVX2", "bf16", "cpu", True),
        ("AVX2", "fp32", "cpu", False),
        ("AVX512", "bf16", "cpu", False),
        ("AVX2", "bf16", "cuda", False),
    ],
)
def test_bf16_on_a_cpu_without_avx512_is_called_slow(
    capability, precision, device, slow, monkeypatch
):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    advice = numerics.slow_precision(EngineConfig(precision=precision), Placement(device=device))
    assert bool(advice) == slow
