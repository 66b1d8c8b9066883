"""Linear layers, computed by the library with the fastest products.

On CPUs, torch computes fp32 products with MKL, which does not use the AVX-512 of AMD processors.
oneDNN does use it. Torch includes oneDNN, and uses it for bf16 products. On CPUs with AVX-512, this
module lets oneDNN compute fp32 products, too, except for small ones. For each new shape, oneDNN
first generates code, which takes more than half a millisecond. Products should therefore have few
different shapes.

Measured on two threads of an AMD EPYC, torch 2.13.0, 2026-11-21, fp32, milliseconds:

    tokens × in × out          990×512×2048  990×512×512  2490×128×384  512×512×8000
    output             torch           11.1          2.7           1.3          23.1
                       oneDNN           5.2          1.2           0.6          10.1
    gradient of input  torch           10.8          2.8           1.5          22.0
                       oneDNN           5.6          1.2           0.6          10.6
    … of weights       torch           11.4          3.0           1.3          21.6
                       oneDNN           6.6          1.7           1.1          12.8

The speedup by oneDNN depends on the processor. One thread of a Zen 4 (AMD EPYC), 2026-11-27, fp32,
CPU time of torch / oneDNN for these four outputs: 1.15, 1.11, 1.17, 1.13.

Measured on one thread of an Intel Xeon, 2026-11-23, fp32, microseconds of CPU time, the median of
five rounds:

    tokens × in × out          32×32×32   64×128×128   64×128×384   256×128×384   2490×128×384
    output             torch        3.4         18.6         45.0         158.9           1606
                       oneDNN      17.2         31.5         59.9         159.4           1480
    … first call       oneDNN       688          672          707           790           2252

For inference, `pack` also stores weights in the layout of oneDNN's products. This saves 5 to 10 %
of the time of a product, and half of the time of a product with few rows. The results have the same
bits, except for a single row, for which oneDNN would sum in a different order. Products of a single
row therefore use the original weights.

Shape suffixes: n tokens, i inputs, o outputs.
"""

from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def _onednn() -> Any:
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # some builds lack oneDNN


_ONEDNN = _onednn()
# Minimum of tokens × inputs × outputs for oneDNN. For smaller products, the overhead of 14 µs
# exceeds the savings on every processor measured above.
ONEDNN_FROM = 2**21
ALIGNMENT = 16  # bytes that one vector instruction of a GPU reads
# Number of rows for which oneDNN chooses the layout of packed weights.
TYPICAL_ROWS = 256


def uses_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if oneDNN computes large products on this device in this dtype."""
    return _ONEDNN is not None and device.type == "cpu" and dtype is torch.float32


def _onednn_is_faster(x: Tensor, weight_oi: Tensor) -> bool:
    if torch.compiler.is_compiling():  # one graph serves all sizes
        return False
    return uses_onednn(x.device, x.dtype) and x.numel() * weight_oi.size(0) >= ONEDNN_FROM


def product(a: Tensor, b_oi: Tensor) -> Tensor:
    """Return a · bᵀ (…, o) for a (…, i) and b (o, i), without gradients.

    If both a and b are transposed views, oneDNN copies only a.
    """
    if _onednn_is_faster(a, b_oi):
        return _from_onednn(a, b_oi)
    return a @ b_oi.T


def affine(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """Return x · Wᵀ + b (…, o) for x (…, i), by `product` if no gradients are needed."""
    if torch.is_grad_enabled():
        return F.linear(x, weight_oi, bias_o)
    y = product(x, weight_oi)
    return y if bias_o is None else y.add_(bias_o)


def pack(network: nn.Module) -> None:
    """Prepare the fp32 weights of a network on a CPU for products without gradients.

    The weights of the linear layers and of the output projection are also stored in oneDNN's
    layout, which doubles their memory. If a weight changes afterwards, its packed copy is ignored
    until the network is packed again.
    """
    weights: list[Any] = [one.weight for one in network.modules() if isinstance(one, Linear)]
    if hasattr(network, "output_weight"):
        weights.append(network.output_weight)
    for weight_oi in weights:
        if weight_oi.is_inference():  # a later change could not be detected
            continue
        if uses_onednn(weight_oi.device, weight_oi.dtype) and _packed(weight_oi) is None:
            packed = torch.ops.mkldnn._reorder_linear_weight(weight_oi.detach(), TYPICAL_ROWS)
            weight_oi.packed = (weight_oi._version, packed)


def _packed(weight_oi: Tensor) -> Tensor | None:
    if not hasattr(weight_oi, "packed"):  # a tensor of torch's inference mode has no version
        return None
    version, packed = weight_oi.packed
    return packed if version == weight_oi._version else None


@overload
def aligned(parameter: Tensor) -> Tensor: ...


@overload
def aligned(parameter: None) -> None: ...


def aligned(parameter: Tensor | None) -> Tensor | None:
    """Return a parameter, or a copy if its address is not a multiple of `ALIGNMENT` bytes.

    On a GPU, the address determines which kernel computes a product or a norm, and different
    kernels round differently. A separate parameter is always aligned. But in ZeRO's flat buffers,
    parameters follow one another, so a parameter of 34 elements shifts all later parameters.
    Without copies, the bits would depend on the ZeRO stage. Only misaligned parameters are copied.
    A compiled layer reads no addresses; `trainer.zero.compiled_layers` has checked them.
    """
    if parameter is None or torch.compiler.is_compiling() or is_aligned(parameter):
        return parameter
    return parameter.clone()


def is_aligned(parameter: Tensor) -> bool:
    """Return True if the address of a parameter is a multiple of `ALIGNMENT` bytes."""
    return parameter.data_ptr() % ALIGNMENT == 0


class Linear(nn.Linear):
    """Linear layer like `torch.nn.Linear`, computed by oneDNN where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Convert inputs (…, i) into outputs (…, o)."""
        weight_oi, bias_o = aligned(self.weight), aligned(self.bias)
        if _onednn_is_faster(x, weight_oi):
            if torch.is_grad_enabled():
                return _Linear.apply(x, weight_oi, bias_o)
            return _from_onednn(x, weight_oi, bias_o)
        return F.linear(x, weight_oi, bias_o)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_oi: Tensor, bias_o: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_oi)
        return _from_onednn(x, weight_oi, bias_o)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, y_grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_oi = ctx.saved_tensors
        y_grad_no = y_grad.flatten(0, -2)
        of_x, of_weight, of_bias = ctx.needs_input_grad  # frozen weights need no gradient
        x_grad = product(y_grad_no, weight_oi.T).view_as(x) if of_x else None
        weight_grad = product(y_grad_no.T, x.flatten(0, -2).T) if of_weight else None
        return x_grad, weight_grad, y_grad_no.sum(dim=0) if of_bias else None


def _from_onednn(x: Tensor, weight_oi: Tensor, bias_o: Tensor | None = None) -> Tensor:
    packed = _packed(weight_oi) if x.numel() > x.size(-1) else None
    weight = weight_oi if packed is None else packed
    y: Tensor = _ONEDNN(x, weight, bias_o, "none", [], "")
    return y
