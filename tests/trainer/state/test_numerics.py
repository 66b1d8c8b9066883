"""Differences that the numerics fingerprint detects."""

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
def test_the_fingerprint_has_the_named_attention_or_the_default(settings, expected):
    fingerprint = numerics.fingerprint(EngineConfig(**settings), Placement())
    assert fingerprint["attention"] == expected


def test_values_of_a_fingerprint_are_plain_types():
    """The supervisor unpickles them; a class of torch would make it import torch."""
    fingerprint = numerics.fingerprint(EngineConfig(numerics="exact"), Placement())
    assert {type(value) for value in fingerprint.values()} <= {str, int}


def test_another_attention_backend_is_a_difference():
    ours, theirs = (
        numerics.fingerprint(EngineConfig(attention=name), Placement())
        for name in (AttentionBackend.SDPA, AttentionBackend.MATMUL)
    )
    assert numerics.differences(ours, theirs) == {"attention": ["sdpa", "matmul"]}


def test_fp32_products_of_onednn_are_in_the_fingerprint():
    fp32, bf16 = (
        numerics.fingerprint(EngineConfig(precision=name), Placement()) for name in ("fp32", "bf16")
    )
    from_where = f"oneDNN from {ONEDNN_FROM}" if "AVX512" in fp32["device"] else None
    assert fp32.get("products") == from_where
    assert "products" not in bf16  # torch always uses oneDNN for these


def test_a_softmax_in_another_precision_is_in_the_fingerprint():
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
def test_all_attention_layers_of_a_model_use_the_configured_backend(phrasebook, name):
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
def test_bf16_on_a_cpu_without_avx512_is_reported_as_slow(
    capability, precision, device, slow, monkeypatch
):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    advice = numerics.slow_precision(EngineConfig(precision=precision), Placement(device=device))
    assert bool(advice) == slow
