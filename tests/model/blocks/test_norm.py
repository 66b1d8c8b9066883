import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from model.blocks.norm import RMSNorm, norm_of
from model.config.decoder_only import DecoderOnlyConfig


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_rms_norm_equals_llamas_in_outputs_and_gradients(epsilon, dtype, tolerance):
    torch.manual_seed(0)
    ours, theirs = RMSNorm(24, epsilon).to(dtype), LlamaRMSNorm(24, epsilon).to(dtype)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.linspace(-1, 2, 24))
    x = torch.randn(3, 5, 24).to(dtype).requires_grad_()
    towards = torch.randn(3, 5, 24).to(dtype)
    outcomes = [
        [norm(x), *torch.autograd.grad(norm(x), [x, norm.weight], towards)]
        for norm in (ours, theirs)
    ]
    assert len(outcomes[0]) == 3
    for mine, other in zip(*outcomes, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance)


def test_norm_of_builds_the_norm_that_the_settings_describe():
    rms = norm_of(DecoderOnlyConfig(norm_kind="rms", norm_epsilon=0.2))
    assert isinstance(rms, RMSNorm)
    assert (rms.width, rms.epsilon) == (768, 0.2)
    for bias in (True, False):
        layer = norm_of(DecoderOnlyConfig(norm_epsilon=0.3, bias=bias))
        assert isinstance(layer, nn.LayerNorm)
        assert layer.eps == 0.3
        assert (layer.bias is not None) == bias
