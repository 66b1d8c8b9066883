"""Attention within packed sentences: the reference, the arguments of the kernel, and the kernel."""

import warnings

import pytest
import torch
import torch.nn.attention.varlen as torch_varlen
from support.gradients import assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu, on_a_gpu

from model.blocks import varlen
from model.blocks.attention import additive_mask, attention
from model.blocks.packing import PackedMask, packings
from model.config.transformer import AttentionBackend
from model.errors import ModelError
from model.losses.loss import CrossEntropy

HEADS, HEAD_WIDTH = 4, 16
SHORT, LONG = [1, 23, 2, 1, 9], [40, 1, 3, 1, 17]
CASES = pytest.mark.parametrize(
    ("query_lengths", "key_lengths", "causal"),
    [
        pytest.param(SHORT, LONG, False, id="cross"),
        pytest.param(LONG, SHORT, False, id="cross-other-way"),
        pytest.param(LONG, LONG, False, id="self"),
        pytest.param(LONG, LONG, True, id="causal"),
        pytest.param([1, 1, 1], [1, 1, 1], True, id="single-tokens"),
        pytest.param([6], [6], True, id="one-sentence"),
    ],
)


def packed(lengths, device="cpu"):
    real = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return packings(real.to(device))[0]


def same_sentence(query_lengths, key_lengths, device="cpu"):
    return PackedMask(packed(query_lengths, device), packed(key_lengths, device))


def projections(query_lengths, key_lengths, dtype=torch.float32, device="cpu", width=HEAD_WIDTH):
    """Return queries, and keys with values, as the model makes them: (tokens, parts, h, d)."""
    generator = torch.Generator().manual_seed(0)
    queries, memory = (
        torch.randn(sum(lengths), parts, HEADS, width, generator=generator)
        for lengths, parts in ((query_lengths, 1), (key_lengths, 2))
    )
    return [x.to(device=device, dtype=dtype).requires_grad_() for x in (queries, memory)]


def heads(queries, memory):
    """Return three views (1, h, tokens, d): queries, keys and values."""
    return [
        x.unbind(1)[i].transpose(0, 1)[None] for x, i in ((queries, 0), (memory, 0), (memory, 1))
    ]


def mix_and_gradients(compute, queries, memory, sentences, causal):
    mixed = compute(*heads(queries, memory), sentences, causal)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(mixed.shape, generator=generator).to(mixed)
    return [mixed, *torch.autograd.grad((mixed * weights).sum(), [queries, memory])]


def block_diagonal(query, keys, values, query_lengths, key_lengths, causal):
    """Compute the same as one attention over the whole row, with a mask of all pairs of tokens."""
    blocks = [
        torch.ones(t, s, dtype=torch.bool).tril() if causal else torch.ones(t, s, dtype=torch.bool)
        for t, s in zip(query_lengths, key_lengths, strict=True)
    ]
    mask = additive_mask(torch.block_diag(*blocks).bool())
    return attention(query, keys, values, mask=mask, backend=AttentionBackend.MATMUL)


@CASES
def test_attention_sentence_by_sentence_equals_that_with_a_block_diagonal_mask(
    query_lengths, key_lengths, causal
):
    leaves = projections(query_lengths, key_lengths)
    found = mix_and_gradients(
        lambda *heads_and_more: attention(
            *heads_and_more[:3], mask=heads_and_more[3], causal=heads_and_more[4]
        ),
        *(*leaves, same_sentence(query_lengths, key_lengths), causal),
    )
    expected = mix_and_gradients(
        lambda query, keys, values, _, causal: block_diagonal(
            query, keys, values, query_lengths, key_lengths, causal
        ),
        *(*leaves, None, causal),
    )
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def as_documented(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)):
    """Check the documented rules of `varlen_attn` and those of its CUDA code, and compute it."""
    for x, starts, longest in ((query, cu_seq_q, max_q), (key, cu_seq_k, max_k)):
        assert x.shape[1:] == (HEADS, HEAD_WIDTH)
        assert starts.dtype == torch.int32
        assert type(longest) is int
        assert longest == starts.diff().max()
        assert starts[0] == 0
        assert starts[-1] == len(x)
    for x in (query, key, value):
        assert x.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in x.stride()[:-1]), "16 bytes aligned"
    mixed = torch.zeros_like(query)
    for number in range(len(cu_seq_q) - 1):
        q, k = (slice(*starts[number : number + 2].tolist()) for starts in (cu_seq_q, cu_seq_k))
        for head in range(HEADS):
            scores = query[q, head] @ key[k, head].T / HEAD_WIDTH**0.5
            if window_size == (-1, 0):
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            else:
                assert window_size == (-1, -1)
            mixed[q, head] = scores.softmax(dim=1) @ value[k, head]
    return mixed


@CASES
def test_the_kernel_is_called_by_documented_rules(monkeypatch, query_lengths, key_lengths, causal):
    """Compute in fp32, so that the code around the kernel can be compared closely."""
    monkeypatch.setattr(torch_varlen, "varlen_attn", as_documented)
    monkeypatch.setattr(varlen, "HALF_PRECISIONS", (torch.float32,))
    leaves = projections(query_lengths, key_lengths)
    sentences = same_sentence(query_lengths, key_lengths)
    found = mix_and_gradients(varlen.flash, *leaves, sentences, causal)
    expected = mix_and_gradients(varlen.sentence_by_sentence, *leaves, sentences, causal)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@CASES
def test_torchs_varlen_operator_accepts_the_call_and_has_a_backward_pass(
    query_lengths, key_lengths, causal, dtype
):
    """The meta device computes shapes, without numbers."""
    leaves = projections(query_lengths, key_lengths, dtype, "meta")
    sentences = PackedMask(
        *(
            packing._replace(cu_seqlens=packing.cu_seqlens.to("meta"))
            for packing in same_sentence(query_lengths, key_lengths)
        )
    )
    query, keys, values = heads(*leaves)
    mixed = attention(query, keys, values, mask=sentences, causal=causal)
    assert mixed.shape == query.shape
    assert mixed.dtype == dtype
    # The output projection needs this memory layout of its input.
    assert mixed.transpose(1, 2).flatten(2).data_ptr() == mixed.data_ptr()
    assert mixed.transpose(1, 2).is_contiguous()
    gradients = torch.autograd.grad(mixed.sum(), leaves)
    assert [gradient.shape for gradient in gradients] == [leaf.shape for leaf in leaves]


@pytest.mark.parametrize(
    ("dtype", "width", "message"),
    [
        (torch.float32, 16, r"got torch.float32 on a GPU.*engine.precision=bf16"),
        (torch.bfloat16, 20, r"heads 20 wide.*multiples of 8 up to 256"),
        (torch.bfloat16, 264, r"heads 264 wide.*multiples of 8 up to 256"),
    ],
)
def test_inputs_that_the_kernel_cannot_compute_are_refused(dtype, width, message):
    query, keys, values = heads(*projections(SHORT, SHORT, dtype, "meta", width))
    with pytest.raises(ModelError, match=message):
        attention(query, keys, values, mask=same_sentence(SHORT, SHORT))


@on_a_gpu
@CASES
def test_the_kernel_agrees_with_the_reference_on_a_gpu(query_lengths, key_lengths, causal):
    """The reference computes in fp32 with the same numbers, which bf16 represents exactly."""
    sentences = same_sentence(query_lengths, key_lengths, "cuda")
    half = projections(query_lengths, key_lengths, torch.bfloat16, "cuda")
    full = [leaf.detach().float().requires_grad_() for leaf in half]
    found = mix_and_gradients(varlen.packed_attention, *half, sentences, causal)
    expected = mix_and_gradients(varlen.sentence_by_sentence, *full, sentences, causal)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=3e-2, atol=3e-2)


def waits_for_the_device(compute):
    """Return the result of `compute`, and the warnings about waiting for the GPU meanwhile."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            result = compute()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return result, [n for n in noted if "called a synchronizing CUDA operation" in str(n.message)]


@on_a_gpu
def test_a_forward_pass_waits_for_the_gpu_once(build, sentences, as_input):
    source, target = sentences([9, 1, 40, 17]), sentences([6, 23, 1, 3], seed=2)
    model = build(backend=AttentionBackend.VARLEN, dropout=0.1).to("cuda", torch.bfloat16)
    batch = [ids.to("cuda") for ids in (source, as_input(target), target)]
    model(*batch, CrossEntropy(0.1))  # sets up what is needed from the first call on
    _, waits = waits_for_the_device(lambda: model(*batch, CrossEntropy(0.1)))
    assert len(waits) == 1, [f"{wait.filename}:{wait.lineno}" for wait in waits]


@on_a_gpu
def test_bf16_on_a_gpu_is_near_fp32_on_a_cpu(build, sentences, as_input):
    source, target = sentences([9, 1, 40, 17]), sentences([6, 23, 1, 3], seed=2)
    assert_bf16_on_a_gpu_is_near_fp32_on_a_cpu(
        lambda: build(backend=AttentionBackend.VARLEN), (source, as_input(target), target)
    )
