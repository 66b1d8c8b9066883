"""Stage *kernels*: compare parts of the network on the device with fp64 on the CPU.

Inputs and weights are first rounded to the precision under test, so that the reference computes
with the same numbers. The figure is the largest difference of outputs and gradients, divided by the
largest reference value. For a network, it is the norm of the difference divided by the norm of the
reference.

Shape suffixes are those of `model.blocks.attention`; n is target tokens, and v is vocabulary.
"""

import copy
import importlib.util
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import benchmarks.gpu_check.networks as networks
from benchmarks.gpu_check.machine import ROOT
from benchmarks.gpu_check.outcomes import (
    CannotRunError,
    Measurement,
    Work,
    WrongResultError,
    require_gpu,
    within,
)
from model.blocks.attention import SelfAttention, additive_mask, attention
from model.blocks.norm import RMSNorm
from model.blocks.packing import PackedMask, packings
from model.blocks.rotary import RotaryPositions, rotate
from model.blocks.varlen import packed_attention, sentence_by_sentence
from model.config.transformer import AttentionBackend, DecodingConfig, ModelConfig
from model.generation.search import greedy_search
from model.losses.loss import label_smoothed_sums
from model.losses.r_drop import r_drop_sums
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.tasks.randomness import seed_torch
from trainer.zero.compiled_layers import compile_network

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
BOUNDS = {"fp32": 1e-5, "bf16": 3e-2}
NETWORK_BOUNDS = {"fp32": 1e-4, "bf16": 0.15}
UNIT = "relative difference"
BHTD = (4, 4, 96, 32)
LENGTHS, KEY_LENGTHS = [70, 1, 33, 128, 7], [64, 5, 2, 96, 128]
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
TOKENS, VOCABULARY, WIDTH = 1300, 500, 64  # more tokens than one chunk of the loss
SMOOTHING, ALPHA = 0.1, 5.0

Compute = Callable[..., Tensor | tuple[Tensor, ...]]


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference divided by the largest expected value; inf if not finite."""
    difference = (found.detach().double().cpu() - expected.detach()).abs().max()
    figure = float(difference / expected.detach().abs().max().clamp_min(1e-30))
    return figure if math.isfinite(figure) else math.inf


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def results_and_gradients(compute: Compute, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the results of a computation, and the gradients of its floating-point inputs."""
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    results = compute(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    total = torch.zeros((), dtype=torch.float64, device=results[0].device)
    for number, result in enumerate(results):
        if result.requires_grad:
            weights = random(*result.shape, seed=100 + number).to(result)
            total = total + (result * weights).sum().double()
    total.backward()
    return [*results, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def against_fp64(
    work: Work,
    precision: str,
    compute: Compute,
    inputs: Sequence[Tensor],
    reference: Compute | None = None,
) -> Measurement:
    """Compare results and gradients of a computation on the device with a reference on the CPU.

    Args:
        inputs: fp64 tensors on the CPU, and ids.
        reference: the reference computation; None uses `compute` itself.
    """
    rounded = [x.to(DTYPES[precision]) if x.is_floating_point() else x for x in inputs]
    exact = [x.double() if x.is_floating_point() else x for x in rounded]
    found = results_and_gradients(compute, [x.to(work.device) for x in rounded])
    expected = results_and_gradients(reference or compute, exact)
    differences = map(largest_difference, found, expected)
    return within(max(differences), BOUNDS[precision], UNIT)


def _sdpa(mask: Tensor | None, causal: bool, backend: AttentionBackend) -> Compute:
    def compute(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        on_device = mask if mask is None else mask.to(query.device)
        return attention(query, keys, values, mask=on_device, causal=causal, backend=backend)

    return compute


def _attention(
    work: Work, precision: str, *, mask: Tensor | None = None, causal: bool = False
) -> Measurement:
    inputs = [random(*BHTD, seed=number) for number in range(3)]
    return against_fp64(
        work,
        precision,
        _sdpa(mask, causal, AttentionBackend.SDPA),
        inputs,
        _sdpa(mask, causal, AttentionBackend.MATMUL),
    )


def sdpa_padded(work: Work, precision: str) -> Measurement:
    visible = torch.arange(BHTD[2]) < torch.tensor([96, 60, 1, 33]).unsqueeze(1)
    return _attention(work, precision, mask=additive_mask(visible)[:, None, None, :])


def sdpa_causal(work: Work, precision: str) -> Measurement:
    return _attention(work, precision, causal=True)


def sdpa_kernel_of(work: Work, name: str) -> Measurement:
    if not work.is_gpu and name != "flash":
        raise CannotRunError(f"the kernel {name} needs a GPU")
    try:
        with sdpa_kernel(KERNELS[name]):
            found = _on_device(work)
    except RuntimeError as error:
        if "No available kernel" in str(error):
            raise CannotRunError(f"torch has no kernel {name} for this device") from None
        raise
    inputs = [random(*BHTD, seed=number).bfloat16().double() for number in range(3)]
    expected = results_and_gradients(_sdpa(None, True, AttentionBackend.MATMUL), inputs)
    return within(max(map(largest_difference, found, expected)), BOUNDS["bf16"], UNIT)


def _on_device(work: Work) -> list[Tensor]:
    inputs = [random(*BHTD, seed=number).to(work.device, torch.bfloat16) for number in range(3)]
    return results_and_gradients(_sdpa(None, True, AttentionBackend.SDPA), inputs)


def _packed(device: str, cross: bool) -> PackedMask:
    def real(lengths: list[int]) -> Tensor:
        return torch.arange(max(lengths), device=device) < torch.tensor(
            lengths, device=device
        ).unsqueeze(1)

    queries, keys = packings(real(LENGTHS), real(KEY_LENGTHS if cross else LENGTHS))
    return PackedMask(queries, keys)


def varlen(work: Work, kind: str) -> Measurement:
    """Compare packed attention in bf16, the only precision that the kernel supports on a GPU."""
    causal, cross = kind == "causal", kind == "cross"
    on_device, on_host = _packed(work.device, cross), _packed("cpu", cross)
    tokens, keys = sum(LENGTHS), sum(KEY_LENGTHS if cross else LENGTHS)
    inputs = [random(1, 4, tokens, 32), *(random(1, 4, keys, 32, seed=n) for n in (1, 2))]
    return against_fp64(
        work,
        "bf16",
        lambda *qkv: packed_attention(*qkv, on_device, causal),
        inputs,
        lambda *qkv: sentence_by_sentence(*qkv, on_host, causal),
    )


def varlen_fa3(work: Work) -> Measurement:
    """Run `varlen` with FlashAttention-3 instead of FlashAttention-2."""
    if not work.is_gpu:
        raise CannotRunError("FlashAttention-3 needs a GPU")
    from torch.nn import attention as torch_attention

    if not hasattr(torch_attention, "activate_flash_attention_impl"):
        raise CannotRunError(f"torch {torch.__version__} cannot activate FlashAttention-3")
    try:
        torch_attention.activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError, ValueError) as error:
        raise CannotRunError(f"FlashAttention-3 cannot be activated: {error}") from None
    try:
        return varlen(work, "causal")
    finally:
        torch_attention.restore_flash_attention_impl()


def grouped(work: Work, precision: str) -> Measurement:
    config = ModelConfig(width=WIDTH, heads=8, key_value_heads=2, positions="rotary")
    seed_torch(1, "weights")
    layer, positions = SelfAttention(config), RotaryPositions(config.head_width, 10000.0)

    def compute(layer: nn.Module, x_btm: Tensor) -> Tensor:
        place_t = torch.arange(x_btm.shape[1], device=x_btm.device)
        mixed: Tensor = layer(x_btm, None, True, rotation=positions(place_t, len(place_t)))
        return mixed

    return module_against_fp64(work, precision, layer, [random(3, 50, WIDTH)], compute)


def module_against_fp64(
    work: Work,
    precision: str,
    module: nn.Module,
    inputs: list[Tensor],
    compute: Callable[..., Tensor] = lambda module, *inputs: module(*inputs),
) -> Measurement:
    """Compare a module, and the gradients of its parameters, with the same module in fp64."""
    module = module.to(DTYPES[precision])
    pairs = []
    for dtype, device in ((DTYPES[precision], work.device), (torch.float64, "cpu")):
        one = copy.deepcopy(module).to(device=device, dtype=dtype)
        rounded = [x.to(DTYPES[precision]).to(device=device, dtype=dtype) for x in inputs]
        results = results_and_gradients(lambda *xs, one=one: compute(one, *xs), rounded)
        pairs.append([*results, *(p.grad for p in one.parameters() if p.grad is not None)])
    return within(max(map(largest_difference, *pairs)), BOUNDS[precision], UNIT)


def rotary(work: Work, precision: str) -> Measurement:
    """Compare rotary positions with a product of complex numbers."""
    length, half = 80, 16
    inputs = [random(2, length, 4, 2 * half)]
    positions = RotaryPositions(2 * half, 10000.0)

    def compute(heads_bthd: Tensor) -> Tensor:
        return rotate(heads_bthd, positions(torch.arange(length, device=heads_bthd.device), length))

    def reference(heads_bthd: Tensor) -> Tensor:
        wave = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(length, dtype=torch.float64).unsqueeze(1) * wave
        turn = torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
        turned = torch.complex(*heads_bthd.chunk(2, dim=-1)) * turn
        return torch.cat([turned.real, turned.imag], dim=-1)

    return against_fp64(work, precision, compute, inputs, reference)


def rms_norm(work: Work, precision: str) -> Measurement:
    norm = RMSNorm(WIDTH, 1e-6)
    with torch.no_grad():
        norm.weight.copy_(1 + 0.3 * random(WIDTH))
    return module_against_fp64(work, precision, norm, [random(40, WIDTH)])


def _loss_inputs(rows: int) -> tuple[list[Tensor], Tensor]:
    target_n = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(3))
    return [random(rows, WIDTH), 0.3 * random(VOCABULARY, WIDTH, seed=1)], target_n


def chunked_loss(work: Work, precision: str) -> Measurement:
    inputs, target_n = _loss_inputs(TOKENS)

    def compute(hidden: Tensor, weight: Tensor) -> Tensor:
        return label_smoothed_sums(hidden, weight, target_n.to(hidden.device), SMOOTHING).smoothed

    def reference(hidden: Tensor, weight: Tensor) -> Tensor:
        logits = hidden @ weight.T
        return F.cross_entropy(logits, target_n, reduction="sum", label_smoothing=SMOOTHING)

    return against_fp64(work, precision, compute, inputs, reference)


def r_drop(work: Work, precision: str) -> Measurement:
    inputs, target_n = _loss_inputs(2 * TOKENS)
    target_m = target_n.repeat(2)

    def compute(hidden: Tensor, weight: Tensor) -> Tensor:
        on_device = target_m.to(hidden.device)
        return r_drop_sums(hidden, weight, on_device, SMOOTHING, ALPHA).smoothed

    def reference(hidden: Tensor, weight: Tensor) -> Tensor:
        logits = hidden @ weight.T
        entropy = F.cross_entropy(logits, target_m, reduction="sum", label_smoothing=SMOOTHING)
        one, two = logits.log_softmax(dim=1).chunk(2)
        both = (one.exp() - two.exp()) * (one - two)  # KL in both directions
        return entropy / 2 + ALPHA / 4 * both.sum()

    return against_fp64(work, precision, compute, inputs, reference)


def activation_checkpointing(work: Work) -> Measurement:
    """Compare gradients with and without activation checkpoints, with the same dropout."""
    found = []
    for on in (False, True):
        network, batch = networks.transformer(AttentionBackend.SDPA, dropout=0.3)
        network.to(work.device).checkpoint_activations(on)
        seed_torch(1, "dropout")
        found.append(loss_and_gradients(network, [ids.to(work.device) for ids in batch])[1])
    # A GPU may sum in another order in the second pass. Different dropout would exceed this bound
    # by far.
    return within(relative_norm(*found), 1e-5, UNIT)


def loss_and_gradients(network: nn.Module, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss, and all gradients as one vector, in fp64 on the CPU."""
    sums = network(*batch, networks.LOSS)
    sums.smoothed.backward()
    gradients = [
        p.grad.flatten().double().cpu() for p in network.parameters() if p.grad is not None
    ]
    return sums.smoothed.detach().double().cpu(), torch.cat(gradients)


def relative_norm(found: Tensor, expected: Tensor) -> float:
    figure = float((found - expected).norm() / expected.norm())
    return figure if math.isfinite(figure) else math.inf


def _network(
    work: Work, precision: str, build: networks.Build, packed: bool = False, compiled: bool = False
) -> Measurement:
    backend = AttentionBackend.VARLEN if packed else AttentionBackend.SDPA
    network, batch = build(backend)
    network.to(DTYPES[precision])  # the reference uses the rounded weights
    reference, _ = build(AttentionBackend.MATMUL)
    reference.load_state_dict(network.state_dict())
    network.to(work.device)
    if compiled:
        settings = EngineConfig(compile="layers", precision=precision)  # type: ignore[arg-type]
        rows, here = len(batch[0]), Placement(device=work.device)
        compile_network(copy.deepcopy(network), settings, rows, here).use_in(network)
    loss, gradients = loss_and_gradients(network, [x.to(work.device) for x in batch])
    expected_loss, expected = loss_and_gradients(reference.double(), batch)
    figure = max(relative_norm(gradients, expected), float((loss / expected_loss - 1).abs()))
    return within(figure, NETWORK_BOUNDS[precision], UNIT)


def transformer(work: Work, precision: str) -> Measurement:
    return _network(work, precision, networks.transformer)


def decoder_only(work: Work, precision: str) -> Measurement:
    return _network(work, precision, networks.decoder_only)


def masked(work: Work, precision: str) -> Measurement:
    return _network(work, precision, networks.masked)


def compiled(work: Work, name: str) -> Measurement:
    """Compare a network with compiled layers; the name is of a kind and a precision."""
    require_gpu(work)
    kind, _, precision = name.rpartition("-")
    return _network(work, precision, networks.BUILDERS[kind], compiled=True)


def labels(work: Work, precision: str) -> Measurement:
    return _network(work, precision, networks.labels)


def embeddings(work: Work, precision: str) -> Measurement:
    return _network(work, precision, networks.embeddings)


def packed(work: Work, name: str) -> Measurement:
    return _network(work, "bf16", networks.BUILDERS[name], packed=True)


@torch.no_grad()
def decoding_cache(work: Work, precision: str) -> Measurement:
    """Compare the scores of given translations with those of one pass over all tokens."""
    network, (source, _, target) = networks.transformer(AttentionBackend.SDPA)
    network.to(DTYPES[precision]).eval()
    prefix = target.masked_fill(target == networks.EOS, networks.PAD)
    forced = DecodingConfig(max_length_factor=0.0, max_extra_length=target.shape[1] + 1)
    on_device = copy.deepcopy(network).to(work.device)
    found = greedy_search(on_device, source.to(work.device), forced, prefix.to(work.device))
    reference = network.double()
    worst = 0.0
    for row, hypothesis in enumerate(found):
        given = [int(each) for each in prefix[row] if each != networks.PAD]
        if list(hypothesis.ids[: len(given)]) != given:
            raise WrongResultError(f"sentence {row} does not begin with its prefix")
        ids = torch.tensor([networks.BOS, *hypothesis.ids]).unsqueeze(0)
        right = torch.tensor([*hypothesis.ids, networks.EOS])
        real = source[row : row + 1, : int((source[row] != networks.PAD).sum())]
        hidden = reference.decode(ids, reference.encode(real), real)[0]
        logs = (hidden @ reference.output_weight.T).log_softmax(dim=1)
        total = float(logs.gather(1, right.unsqueeze(1)).sum())
        penalty = ((5 + len(right)) / 6) ** forced.length_penalty
        worst = max(worst, abs(hypothesis.score * penalty / total - 1))
    return within(worst, BOUNDS[precision], UNIT)


@torch.no_grad()
def text_cache(work: Work, precision: str) -> Measurement:
    """Compare decoding steps with the cache with one pass over the whole text."""
    network, (ids, _, _) = networks.decoder_only(AttentionBackend.SDPA)
    network.to(DTYPES[precision]).eval()
    ids = ids[:, :12].clamp_min(networks.EOS + 1)
    reference = copy.deepcopy(network).double()
    expected = reference.hidden(ids, torch.zeros_like(ids))
    network, ids = network.to(work.device), ids.to(work.device)
    lengths, row = torch.arange(1, len(ids) + 1, device=work.device), torch.arange(len(ids))
    caches = network.empty_caches()
    network.prefill(ids[:, : len(ids)], lengths, caches)
    differences = []
    for more in range(12 - len(ids)):
        places = lengths + more
        longest = len(ids) + more + 1
        found = network.step(ids[row, places], places, longest, caches)
        differences.append(largest_difference(found, expected[row, places.cpu()]))
    return within(max(differences), BOUNDS[precision], UNIT)


def pytest_gpu(work: Work, folder: str) -> Measurement:
    """Run the project's tests that need a GPU."""
    if importlib.util.find_spec("pytest") is None:
        raise CannotRunError("pytest is not installed")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    # Another version of a library may emit warnings that the pinned version does not.
    command += ["-W", "ignore", str(ROOT / folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    found = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    if done.returncode or "failed" in found or "error" in found:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise WrongResultError(lines[-1] if lines else f"exit code {done.returncode}")
    if not found.get("passed"):
        raise CannotRunError("all of these tests need a GPU")
    return Measurement(found["passed"], "tests passed")
