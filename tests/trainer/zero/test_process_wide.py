"""Process-wide settings of an engine are restored, and exact numerics select kernels."""

import pytest
import torch
from deepspeed.runtime.zero import partition_parameters
from deepspeed.runtime.zero.partition_parameters import Init, InsertPostInitMethodToModuleSubClasses
from torch.nn import attention
from torch.nn import functional as F
from torch.nn.attention import _registry

from trainer.zero.process_wide import engine_process_settings, linear_of_rows


class Handle:
    def remove(self) -> None:
        pass


@pytest.fixture
def activated():
    """Activate a stand-in for FlashAttention-3, as an extension may do; return its name."""
    attention.register_flash_attention_impl("stand-in", register_fn=Handle)
    attention.activate_flash_attention_impl("stand-in")
    yield "stand-in"
    attention.restore_flash_attention_impl()
    del _registry._FLASH_ATTENTION_IMPLS["stand-in"]


def test_exact_numerics_use_torchs_flash_attention(activated):
    with engine_process_settings(exact=True):
        assert attention.current_flash_attention_impl() is None
        assert torch.are_deterministic_algorithms_enabled()
    assert attention.current_flash_attention_impl() == activated
    with engine_process_settings(exact=False):
        assert attention.current_flash_attention_impl() == activated


def test_stage_3_replaces_torchs_linear_function_except_with_exact_numerics(monkeypatch):
    torchs = F.linear
    # print_rank_0 would ask the process group for the rank.
    monkeypatch.setattr(partition_parameters, "print_rank_0", lambda *_, **__: None)
    for exact in (True, False):
        # As in a new process, let DeepSpeed replace the first function that it finds.
        monkeypatch.delattr(InsertPostInitMethodToModuleSubClasses, "linear_bk", raising=False)
        with engine_process_settings(exact=exact):
            before = F.linear
            Init._enable_mem_efficient_linear(None)
            assert (F.linear is before) == exact
        assert F.linear is torchs


def test_importing_transloom_activates_no_flash_attention():
    """Torch's default is FlashAttention-2."""
    assert attention.current_flash_attention_impl() is None
    with engine_process_settings(exact=True):
        assert attention.current_flash_attention_impl() is None
    assert attention.current_flash_attention_impl() is None


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
def test_linear_of_rows_equals_torchs_linear_function(shape):
    torch.manual_seed(1)
    inputs = [torch.randn(shape), torch.randn(6, 4), torch.randn(6)]
    found, expected = [], []
    for compute, results in ((linear_of_rows, found), (F.linear, expected)):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        result = compute(*leaves)
        results.extend([result, *torch.autograd.grad(result.square().sum(), leaves)])
    torch.testing.assert_close(found, expected)
