"""Compare the gradients of two ways to compute a loss."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.blocks.dropout import Dropout
from model.losses.loss import CrossEntropy

Pass = tuple[list[Tensor], dict[str, Tensor]]  # the losses, and the gradients by name


def assert_same_gradients(
    ours: Tensor, theirs: Tensor, tensors: Sequence[Tensor], *, rtol: float, atol: float
) -> None:
    """Compare the gradients of both losses with respect to tensors, and check the dtype of ours."""
    gradients, expected = (torch.autograd.grad(loss, tensors) for loss in (ours, theirs))
    for found, wanted, tensor in zip(gradients, expected, tensors, strict=True):
        assert found.dtype == tensor.dtype
        torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)


def loss_and_gradients(network: nn.Module, *batches: Sequence[Any]) -> Pass:
    """Return the smoothed loss and the NLL of batches, and gradients of 1/20 of the former."""
    network.zero_grad()
    sums = [network(*each, CrossEntropy(0.1)) for each in batches]
    smoothed = torch.stack([each.smoothed for each in sums]).sum()
    (smoothed / 20).backward()
    nll = torch.stack([each.nll for each in sums]).sum()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}  # type: ignore[union-attr]
    return [smoothed.detach(), nll], gradients


def assert_close_passes(found: Pass, expected: Pass) -> None:
    for one, two in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=0)
    for name, gradient in found[1].items():
        other = expected[1][name]
        tolerance = 1e-5 * max(1.0, other.abs().max().item())
        torch.testing.assert_close(
            gradient, other, rtol=0, atol=tolerance, msg=lambda m, n=name: n + m
        )


def assert_checkpointing_keeps_bits(
    network: Any, first_layer: nn.Module, batch: Sequence[Any]
) -> None:
    """Check that checkpointed activations run the first layer twice, and change no bit."""
    passes: list[Pass] = []
    calls: list[int] = []
    first_layer.register_forward_pre_hook(lambda *_: calls.append(1))
    for on in (False, True):
        network.checkpoint_activations(on)
        torch.manual_seed(7)
        passes.append(loss_and_gradients(network, batch))
    assert len(calls) == 3
    (sums, gradients), (again, gradients_again) = passes
    assert all(torch.equal(one, two) for one, two in zip(sums, again, strict=True))
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients_again[name]), name


def assert_dropout_of_a_half(network: nn.Module, batch: Sequence[Any], modules: int) -> None:
    """Check that this number of modules drop about half of their input each."""
    kept: list[Tensor] = []
    for module in network.modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda _, x, y: kept.append((y != 0).float().mean()))
    network(*batch, CrossEntropy())
    assert len(kept) == modules
    assert all(0.4 < share < 0.6 for share in kept)


def assert_bf16_is_near_fp32(network: nn.Module, batch: Sequence[Any]) -> None:
    expected = network(*batch, CrossEntropy()).smoothed
    found = network.bfloat16()(*batch, CrossEntropy()).smoothed
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)
    found.backward()
    parameters = dict(network.named_parameters())
    assert {p.grad.dtype for p in parameters.values() if p.grad is not None} == {torch.bfloat16}
    assert set(network.state_dict()) == set(parameters)


def on_a_gpu(test: Any) -> Any:
    needs_one = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
    return pytest.mark.gpu(needs_one(test))


def assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu(
    build: Callable[[], nn.Module], batch: Sequence[Tensor]
) -> None:
    passes = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        network = build().to(device=device, dtype=dtype)
        (loss, _), gradients = loss_and_gradients(network, [each.to(device) for each in batch])
        passes.append((loss.cpu(), [each.float().cpu() for each in gradients.values()]))
    (expected_loss, expected), (loss, found) = passes
    torch.testing.assert_close(loss, expected_loss, rtol=2e-2, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        # In bf16 on a CPU, differences are up to 0.09.
        assert (ours - theirs).norm() <= 0.2 * theirs.norm()
