import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from model.blocks.rotary import FIRST_ROWS, RotaryPositions, rotate


def heads(t, d=8, seed=0):
    return torch.randn(2, t, 3, d, generator=torch.Generator().manual_seed(seed))


def by_hand(head_bthd, positions, base):
    """Compute §3.2.2 of Su et al. 2021; each pair of numbers is a point of the complex plane."""
    half = head_bthd.shape[-1] // 2
    out = torch.empty_like(head_bthd)
    for t, position in enumerate(positions):
        for i in range(half):
            angle = position / base ** (i / half)
            x, y = head_bthd[:, t, :, i], head_bthd[:, t, :, i + half]
            out[:, t, :, i] = x * math.cos(angle) - y * math.sin(angle)
            out[:, t, :, i + half] = x * math.sin(angle) + y * math.cos(angle)
    return out


@pytest.mark.parametrize("base", [10000.0, 500.0])
def test_rotation_equals_the_formula_of_the_paper(base):
    positions = [0, 1, 5, 300, 2]
    rotation = RotaryPositions(8, base)(torch.tensor(positions), 301)
    found = rotate(heads(5), rotation)
    torch.testing.assert_close(found, by_hand(heads(5), positions, base), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_equals_llamas(dtype):
    settings = LlamaConfig(
        hidden_size=24,
        num_attention_heads=3,
        rope_parameters={"rope_type": "default", "rope_theta": 700.0},
    )
    position = torch.stack([torch.arange(40), torch.arange(40).flip(0)])
    queries, keys = heads(40).to(dtype), heads(40, seed=1).to(dtype)
    # Llama rotates in the dtype of the queries and ours in fp32, so Llama gets fp32.
    table = LlamaRotaryEmbedding(settings)(queries.float(), position)
    expected = apply_rotary_pos_emb(queries.float(), keys.float(), *table, unsqueeze_dim=2)
    rotation = RotaryPositions(8, 700.0).to(dtype)(position, 40)
    for x, theirs in zip((queries, keys), expected, strict=True):
        found = rotate(x, rotation)
        assert found.dtype == dtype
        torch.testing.assert_close(found, theirs.to(dtype), rtol=1e-6, atol=1e-6)


def test_a_dot_product_of_rotated_vectors_depends_only_on_their_distance():
    positions = RotaryPositions(8, 10000.0)
    query, key = heads(1), heads(1, seed=1)
    products = [
        rotate(query, positions(torch.tensor([p]), 100))
        * rotate(key, positions(torch.tensor([q]), 100))
        for p, q in ((9, 4), (79, 74), (9, 5))
    ]
    first, moved, nearer = (each.sum(dim=-1) for each in products)
    torch.testing.assert_close(first, moved, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(first, nearer, rtol=1e-2, atol=1e-2)


def test_a_rotary_table_that_grows_keeps_its_first_rows_and_stays_fp32():
    positions = RotaryPositions(8, 10000.0).bfloat16()
    few = torch.arange(FIRST_ROWS)
    before = positions(few, FIRST_ROWS)
    assert len(positions(torch.arange(FIRST_ROWS + 1), FIRST_ROWS + 1).sines) == FIRST_ROWS + 1
    longer = positions(torch.arange(3 * FIRST_ROWS), 3 * FIRST_ROWS)
    again = positions(few, FIRST_ROWS)
    for old, new, grown in zip(before, again, longer, strict=True):
        assert old.dtype == torch.float32
        assert torch.equal(old, new)
        assert torch.equal(old, grown[:FIRST_ROWS])


def test_a_table_that_grew_in_inference_mode_can_be_used_in_training():
    positions = RotaryPositions(8, 10000.0)
    with torch.inference_mode():
        positions(torch.arange(4), FIRST_ROWS + 1)
    x = heads(4).requires_grad_()
    rotate(x, positions(torch.arange(4), 4)).sum().backward()
    assert x.grad.any()


def test_the_rotary_table_is_not_in_the_state_dict():
    positions = RotaryPositions(8, 10000.0)
    positions(torch.arange(4), 4)
    assert not positions.state_dict()
    assert not list(positions.buffers())
