import math

import torch

from model.blocks.positions import FIRST_ROWS, SinusoidalPositions


def by_hand(position, column, width):
    angle = position / 10000 ** ((column - column % 2) / width)
    return math.cos(angle) if column % 2 else math.sin(angle)


def test_the_sinusoidal_table_equals_the_formula_of_the_paper():
    table = SinusoidalPositions(8)(0, 40)
    expected = torch.tensor([[by_hand(p, c, 8) for c in range(8)] for p in range(40)])
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-5)


def test_a_table_that_grows_keeps_its_first_rows():
    positions = SinusoidalPositions(8)
    before = positions(0, FIRST_ROWS).clone()
    longer = positions(0, 3 * FIRST_ROWS + 1)
    assert longer.shape == (3 * FIRST_ROWS + 1, 8)
    assert torch.equal(longer[:FIRST_ROWS], before)
    assert torch.equal(positions(5, 9), before[5:9])


def test_a_table_that_grows_keeps_its_dtype():
    positions = SinusoidalPositions(8).bfloat16()
    assert positions(0, FIRST_ROWS + 1).dtype == torch.bfloat16


def test_a_table_that_grew_in_inference_mode_can_be_used_in_training():
    positions = SinusoidalPositions(8)
    with torch.inference_mode():
        positions(0, FIRST_ROWS + 1)
    vectors = torch.ones(FIRST_ROWS + 1, 8, requires_grad=True)
    (vectors * positions(0, FIRST_ROWS + 1)).sum().backward()
    assert torch.equal(vectors.grad, positions.table[: FIRST_ROWS + 1])


def test_the_sinusoidal_table_is_not_in_the_state_dict():
    assert not SinusoidalPositions(8).state_dict()
