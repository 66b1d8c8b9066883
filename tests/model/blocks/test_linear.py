import pytest
import torch

from model.blocks.linear import ONEDNN_FROM, Linear, pack, product, uses_onednn

CPU = torch.device("cpu")
has_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.fixture
def large(monkeypatch):
    """Treat all products as large, and use oneDNN on any processor."""
    monkeypatch.setattr("model.blocks.linear._ONEDNN", torch.ops.mkldnn._linear_pointwise)
    monkeypatch.setattr("model.blocks.linear.ONEDNN_FROM", 1)


def close(ours, reference):
    torch.testing.assert_close(ours.double(), reference, rtol=1e-5, atol=1e-5)


def gradients(layer, x, y_grad):
    return torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], y_grad)


@pytest.mark.parametrize("shape", [(7, 24), (3, 5, 24), (1, 1, 24), (0, 24)])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=has_onednn)])
def test_outputs_and_gradients_are_close_to_torch_in_fp64(shape, strided, size, request):
    if size == "large":
        request.getfixturevalue(size)
    torch.manual_seed(0)
    layer, x = Linear(24, 40), torch.randn(shape)
    if strided:
        x = x.transpose(0, -2).contiguous().transpose(0, -2)
    x.requires_grad_()
    y_grad = torch.randn(*shape[:-1], 40)
    ours = [layer(x), *gradients(layer, x, y_grad)]
    reference = torch.nn.Linear(24, 40).double()
    reference.load_state_dict(layer.state_dict())
    x_64 = x.detach().double().requires_grad_()
    expected = [reference(x_64), *gradients(reference, x_64, y_grad.double())]
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.dtype == torch.float32
        close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_product_accepts_transposed_views(dtype):
    torch.manual_seed(0)
    a, b = torch.randn(24, 7).to(dtype).T, torch.randn(24, 40).to(dtype).T
    expected = a.double() @ b.double().T
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(product(a, b).double(), expected, rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 3, 24)])
def test_product_accepts_any_number_of_leading_dimensions(shape):
    torch.manual_seed(0)
    a, b = torch.randn(shape), torch.randn(40, 24)
    close(product(a, b), a.double() @ b.double().T)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="oneDNN is asked with AVX-512 only"
)
def test_onednn_is_used_only_in_fp32():
    assert uses_onednn(CPU, torch.float32)  # the installed torch has the operation
    assert not uses_onednn(CPU, torch.bfloat16)
    assert not uses_onednn(CPU, torch.float64)


@has_onednn
def test_onednn_is_used_only_for_large_products(monkeypatch):
    monkeypatch.setattr("model.blocks.linear._ONEDNN", torch.ops.mkldnn._linear_pointwise)
    torch.manual_seed(0)
    layer, x = Linear(128, 128), torch.randn(ONEDNN_FROM // 128**2, 128)
    assert "_Linear" in type(layer(x).grad_fn).__name__
    assert "_Linear" not in type(layer(x[1:]).grad_fn).__name__
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x.clone().requires_grad_()))


def test_gradients_computed_again_from_the_same_rows_have_the_same_bits():
    torch.manual_seed(0)
    layer, x = Linear(128, 256), torch.randn(300, 128, requires_grad=True)
    y_grad = torch.randn(300, 256)
    first, again = (gradients(layer, x, y_grad) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@has_onednn
@pytest.mark.usefixtures("large")
def test_a_layer_without_bias_equals_torchs_in_fp64():
    torch.manual_seed(0)
    layer, x = Linear(24, 40, bias=False), torch.randn(3, 5, 24, requires_grad=True)
    y_grad = torch.randn(3, 5, 40)
    assert "_Linear" in type(layer(x).grad_fn).__name__
    reference, x_64 = layer.weight.detach().double().requires_grad_(), x.detach().double()
    x_64.requires_grad_()
    expected = x_64 @ reference.T
    close(layer(x), expected)
    ours = torch.autograd.grad(layer(x), [x, layer.weight], y_grad)
    theirs = torch.autograd.grad(expected, [x_64, reference], y_grad.double())
    for mine, other in zip(ours, theirs, strict=True):
        close(mine, other)


@has_onednn
@torch.no_grad()
def test_packed_weights_give_the_same_bits_and_are_dropped_when_weights_change(large, monkeypatch):
    torch.manual_seed(0)
    layer, inputs = Linear(96, 777), [torch.randn(rows, 96) for rows in (0, 1, 2, 17, 256, 1000)]
    expected = [layer(x) for x in inputs]
    used = []

    def counted(x, weight, *rest):
        used.append(weight.is_mkldnn)
        return torch.ops.mkldnn._linear_pointwise(x, weight, *rest)

    monkeypatch.setattr("model.blocks.linear._ONEDNN", counted)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    pack(layer)
    assert all(torch.equal(layer(x), y) for x, y in zip(inputs, expected, strict=True))
    assert used == [False, True, True, True, True]  # no call for an input of 0 rows
    layer.weight.mul_(2)
    layer.bias.mul_(2)
    assert all(torch.equal(layer(x), 2 * y) for x, y in zip(inputs, expected, strict=True))
    assert not any(used[5:])
    pack(layer)
    assert torch.equal(layer(inputs[3]), 2 * expected[3])
    assert used[-1]


@has_onednn
def test_packing_weights_created_in_inference_mode_keeps_their_results(large, monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    with torch.inference_mode():
        layer, x = Linear(24, 40), torch.randn(17, 24)
        pack(layer)
        close(layer(x), x.double() @ layer.weight.double().T + layer.bias.double())
        close(product(x, layer.weight), x.double() @ layer.weight.double().T)
