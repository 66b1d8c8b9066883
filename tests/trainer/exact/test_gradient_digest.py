"""A digest is the sum of a tensor's 64-bit words, and every flipped bit changes it."""

import numpy as np
import pytest
import torch

from trainer.exact.gradient_digest import digest_of

DTYPES = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def reference(tensor):
    """Return the sum of a tensor's little-endian 64-bit words and of the remaining integers."""
    flat = tensor.detach().reshape(-1).contiguous()
    integers = flat.view(DTYPES[flat.dtype]).numpy()
    per_word = 8 // integers.itemsize
    whole = len(integers) // per_word * per_word
    words = integers[:whole].tobytes()
    total = sum(
        int.from_bytes(words[i : i + 8], "little", signed=True) for i in range(0, len(words), 8)
    )
    total += sum(integers[whole:].tolist())
    return (total + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 5), (7, 3), (0,)], ids=str)
def test_the_digest_is_the_sum_of_words_modulo_two_to_the_64(dtype, shape):
    torch.manual_seed(1)
    tensor = torch.randn(shape).to(dtype)
    found = digest_of(tensor)
    assert (found.dtype, found.shape) == (torch.int64, ())
    assert found.item() == reference(tensor)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_view_has_the_digest_of_its_values(dtype):
    torch.manual_seed(2)
    whole = torch.randn(9, 7).to(dtype)
    for view in (whole.t(), whole[1:], whole[:, 2:5], whole.reshape(-1)[1:], whole[0].expand(4, 7)):
        assert digest_of(view).item() == reference(view)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_flipped_bit_changes_the_digest(dtype):
    torch.manual_seed(3)
    tensor = torch.randn(11).to(dtype)
    tensor[4] = float("nan")
    digest, integers = digest_of(tensor).item(), tensor.view(DTYPES[dtype])
    width = 8 * tensor.element_size()
    for index in range(len(tensor)):
        for bit in range(width):
            mask = -(2**bit) if bit == width - 1 else 2**bit
            integers[index] ^= mask
            assert digest_of(tensor).item() != digest
            integers[index] ^= mask
    assert digest_of(tensor).item() == digest


def test_the_digest_of_large_values_wraps_around_at_64_bits():
    tensor = torch.tensor([np.nan] * 5000)
    assert digest_of(tensor).item() == reference(tensor)
