"""Process-wide settings of an engine are restored, and exact numerics choose the kernels."""

import pytest
import torch
from torch.nn import attention
from torch.nn.attention import _registry

from trainer.zero.process_wide import engine_process_settings


class Handle:
    def remove(self) -> None:
        pass


@pytest.fixture
def activated():
    """Activate a stand-in for FlashAttention-3, as an extension may do with the real one."""
    attention.register_flash_attention_impl("stand-in", register_fn=Handle)
    attention.activate_flash_attention_impl("stand-in")
    yield "stand-in"
    attention.restore_flash_attention_impl()
    del _registry._FLASH_ATTENTION_IMPLS["stand-in"]


def test_exact_numerics_use_the_flash_attention_of_torch(activated):
    with engine_process_settings(exact=True):
        assert attention.current_flash_attention_impl() is None
        assert torch.are_deterministic_algorithms_enabled()
    assert attention.current_flash_attention_impl() == activated
    with engine_process_settings(exact=False):
        assert attention.current_flash_attention_impl() == activated


def test_no_flash_attention_is_activated_by_importing_transloom():
    """FlashAttention-2 is torch's default."""
    assert attention.current_flash_attention_impl() is None
    with engine_process_settings(exact=True):
        assert attention.current_flash_attention_impl() is None
    assert attention.current_flash_attention_impl() is None
