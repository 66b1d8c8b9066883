"""Stage *speed*: measure training against a plain torch loop, and attention, stalls and decoding.

On a GPU, the sizes are those of the papers. On a CPU they are tiny, and the figures mean nothing.
Aims are reported as met or missed; a missed aim is not a failure. The plain loop trains the same
network in bf16 with torch's fused AdamW, without master weights, ZeRO, digests or a metrics file
(`benchmarks.launches.steps`).
"""

import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import cache

import numpy as np
import torch
from support.records.checkpoints import Listener, make_header, work_folder
from torch import Tensor

import benchmarks.gpu_check.path_stage as commands
from benchmarks.checkpoint_stall import GOAL_SECONDS
from benchmarks.exact_cost import clock
from benchmarks.gpu_check.engine_stage import placement
from benchmarks.gpu_check.outcomes import (
    CannotRunError,
    Measurement,
    Work,
    WrongResultError,
    require_gpu,
)
from benchmarks.launches.steps import SLOTS, Form, Row, steps_of
from benchmarks.launches.table import load, total
from model.blocks.attention import additive_mask
from model.blocks.attention import attention as attend
from model.blocks.packing import PackedMask, packings
from model.blocks.varlen import packed_attention
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend, DecodingConfig, ModelConfig
from model.flops import decoder_only_flops, encoder_decoder_flops
from model.generation.search import beam_search
from model.networks.transformer import Transformer
from run_store.checkpoints.fragment import Fragment
from trainer.process.device_peaks import peak_flops
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.randomness import seed_torch

MOST_BELOW_PLAIN = 0.05
BIG_TOKENS_PER_SECOND = 101_000
BIG_MFU = 0.30
MOST_BESIDE_LEDGER = 0.10
MOST_DATA_STALL = 0.02
COST_GOAL = 1.15  # maximum time of an exact step, as a multiple of a fast step
WARM_UP, STEPS, ROUNDS = 3, 10, 2
STARTS = re.compile(r"cu(da)?(LaunchKernel|Memcpy|Memset)\w*")  # functions of CUDA that start work

BIG = ModelConfig(width=1024, feed_forward_width=4096, heads=16)
GPT = DecoderOnlyConfig(preset="gpt2", layers=24, width=1024, heads=16, dropout=0.1)
GPT_1B = DecoderOnlyConfig(preset="gpt2", layers=24, width=2048, heads=16, dropout=0.1)
FORMS = {
    "base": Form(ModelConfig(), 37_000, 400, 32),
    "big": Form(BIG, 37_000, 400, 32),
    "gpt": Form(GPT, 50_304, 8, 1024),
    "gpt-1b": Form(GPT_1B, 50_304, 8, 1024),
}
_TINY = {"width": 32, "heads": 2, "dropout": 0.1}
TINY_FORMS = {
    "base": Form(ModelConfig(encoder_layers=1, decoder_layers=1, **_TINY), 100, 4, 8),
    "big": Form(ModelConfig(encoder_layers=2, decoder_layers=2, **_TINY), 100, 4, 8),
    "gpt": Form(DecoderOnlyConfig(preset="gpt2", layers=2, **_TINY), 100, 4, 8),
}
# The kinds of training to compare, all with the base model: the row that costs more, and its
# reference.
COSTS = {
    "bf16": (Row("base", "bf16", 1, "exact"), Row("base", "bf16", 1, "fast")),
    "fp32": (Row("base", "fp32", 0, "exact"), Row("base", "fp32", 0, "fast")),
    "verified": (Row("base", "bf16", 1, "verified"), Row("base", "bf16", 1, "exact")),
}


def form_of(work: Work, network: str) -> Form:
    return (FORMS if work.is_gpu else TINY_FORMS)[network]


def batch_of(form: Form, device: torch.device) -> DeviceBatch:
    """Return a micro-batch of random tokens, because embedding equal tokens is slow on a GPU."""
    micro_batch, generator = form.micro_batch(), np.random.default_rng(1)
    for field in micro_batch.fields.values():
        field.ids[:] = generator.integers(4, form.vocabulary, len(field.ids))
    return form.task.collate(micro_batch, device)


def seconds_of_a_step(work: Work, step: Callable[[], None]) -> float:
    warm_up, steps = (WARM_UP, STEPS) if work.is_gpu else (1, 2)
    for _ in range(warm_up):
        step()
    started = clock(placement(work))
    for _ in range(steps):
        step()
    return (clock(placement(work)) - started) / steps


@contextmanager
def _stepping(work: Work, row: Row) -> Iterator[Callable[[], None]]:
    """Yield a function that trains one step."""
    form = form_of(work, row.form)
    seed_torch(1, "weights")
    with steps_of(row, form, placement(work)) as step:
        batch = batch_of(form, placement(work).torch_device)
        yield lambda: step(lambda part: nullcontext(), batch)
    if work.is_gpu:
        torch.cuda.empty_cache()


@cache
def in_turn(work: Work, *rows: Row) -> list[float]:
    """Return the seconds per step of each row, which are measured in turn."""
    rounds = []
    for _ in range(ROUNDS if work.is_gpu else 1):
        rounds.append([])
        for row in rows:
            with _stepping(work, row) as step:
                rounds[-1].append(seconds_of_a_step(work, step))
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def _engine_and_plain(work: Work, network: str) -> tuple[float, float]:
    row = Row(network, "bf16", 1, "fast")
    engine, plain = in_turn(work, row, row._replace(loop="plain"))
    return engine, plain


def tokens(work: Work, network: str) -> Measurement:
    engine, _ = _engine_and_plain(work, network)
    count = SLOTS * form_of(work, network).targets
    aim = count / engine >= BIG_TOKENS_PER_SECOND if network == "big" and work.is_gpu else None
    return Measurement(count / engine, "target tokens/s", f"{count} a step", aim)


def beside_plain(work: Work, network: str) -> Measurement:
    engine, plain = _engine_and_plain(work, network)
    below = 1 - plain / engine
    aim = below <= MOST_BELOW_PLAIN if work.is_gpu else None
    rate = SLOTS * form_of(work, network).targets / plain
    return Measurement(100 * below, "% below", f"the plain loop: {rate:,.0f} target tokens/s", aim)


def tflops(work: Work, network: str) -> Measurement:
    engine, _ = _engine_and_plain(work, network)
    return Measurement(step_flops(work, network) / engine / 1e12, "TFLOP/s")


def mfu(work: Work, network: str) -> Measurement:
    engine, _ = _engine_and_plain(work, network)
    if not work.is_gpu:
        raise CannotRunError("the peak FLOP/s of a CPU is not known")
    share = step_flops(work, network) / engine / _peak_flops()
    return Measurement(
        100 * share, "% of the peak", aim=share >= BIG_MFU if network == "big" else None
    )


def _peak_flops() -> float:
    name = torch.cuda.get_device_name(0)
    peak = peak_flops(name, "bf16")
    if peak is None:
        raise CannotRunError(f"the peak FLOP/s of {name} is not known")
    return peak


def compiled(work: Work, network: str) -> Measurement:
    """Measure steps with and without compiled layers in turn."""
    require_gpu(work)
    row = Row(network, "bf16", 1, "fast")
    seconds, divisor = in_turn(work, row._replace(loop="compiled"), row)
    share = step_flops(work, network) / seconds / _peak_flops()
    targets = SLOTS * form_of(work, network).targets
    detail = f"{100 * share:.1f} % of the peak, {targets / seconds:,.0f} target tokens/s"
    return Measurement(seconds / divisor, "of the time of a step", detail, seconds <= divisor)


def step_flops(work: Work, network: str) -> float:
    """Return the model's floating-point operations in the forward and backward pass of a step."""
    form = form_of(work, network)
    kind = encoder_decoder_flops if isinstance(form.config, ModelConfig) else decoder_only_flops
    sizes = form.task.sizes(form.micro_batch())
    assert sizes is not None
    return float(SLOTS * kind(form.config, form.vocabulary).of(*sizes).model)  # type: ignore[arg-type]


def cost(work: Work, kind: str) -> Measurement:
    """Measure steps with exact and fast numerics in turn, or with and without verified sums."""
    dear, reference = COSTS[kind]
    seconds, divisor = in_turn(work, dear, reference)
    aim = seconds <= COST_GOAL * divisor if dear.loop == "exact" else None
    detail = f"stage {dear.stage}, {dear.loop} beside {reference.loop}"
    return Measurement(seconds / divisor, "of the time of a step", detail, aim)


def launches(work: Work, loop: str) -> Measurement:
    """Count the kernels that a bf16 step of base starts on the GPU, and compare with the ledger."""
    expected = total(load()["budgets"], Row("translation", "bf16", 1, loop))
    if not work.is_gpu:
        raise CannotRunError(f"a CPU starts no kernels; the ledger has {expected:,}")
    with _stepping(work, Row("base", "bf16", 1, loop)) as step:
        for _ in range(WARM_UP):
            step()
        with torch.profiler.profile() as profile:
            step()
            torch.cuda.synchronize()
    starts = sum(each.count for each in profile.key_averages() if STARTS.fullmatch(each.key))
    near = abs(starts / expected - 1) <= MOST_BESIDE_LEDGER
    return Measurement(float(starts), "launches", f"the ledger has {expected:,}", near)


def attention(work: Work, longest: str) -> Measurement:
    """Measure forward and backward pass of self-attention for sentences of different lengths."""
    length, total = int(longest), 32_768 if work.is_gpu else 256
    rows, heads, width = max(2, total // int(longest)), 16, 64
    device = torch.device(work.device)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(length // 2, length + 1, (rows,), generator=generator)
    real = (torch.arange(length) < lengths.unsqueeze(1)).to(device)
    (packing,) = packings(real)
    count = int(lengths.sum())

    def leaves(*shape: int) -> list[Tensor]:
        made = torch.randn(3, *shape, device=device, dtype=torch.bfloat16)
        return [one.requires_grad_() for one in made]

    padded = leaves(rows, heads, length, width)
    mask = additive_mask(real)[:, None, None, :].bfloat16()
    packed = leaves(1, heads, count, width)
    sentences = PackedMask(packing, packing)

    def by_sdpa() -> None:
        attend(*padded, mask=mask, backend=AttentionBackend.SDPA).sum().backward()

    def by_varlen() -> None:
        packed_attention(*packed, sentences, False).sum().backward()

    sdpa, varlen = (seconds_of_a_step(work, step) for step in (by_sdpa, by_varlen))
    detail = f"varlen {1000 * varlen:.2f} ms, SDPA {1000 * sdpa:.2f} ms, {count} tokens"
    return Measurement(varlen / sdpa, "of SDPA's time", detail)


def data_stall(work: Work) -> Measurement:
    """Measure the share of time for which a run under Ray waited for data."""
    lines = commands.steps_of(commands.run_of(commands.work_of_path(work)))[5:]
    share = sum(line.data_stall_seconds for line in lines) / sum(
        line.step_seconds for line in lines
    )
    aim = share <= MOST_DATA_STALL if work.is_gpu else None
    return Measurement(100 * share, "% of the time", f"{len(lines)} steps of the phrase book", aim)


def checkpoint_stall(work: Work) -> Measurement:
    """Measure how long a checkpoint delays training if the state is on the device."""
    numel = 250_000_000 if work.is_gpu else 250_000
    state = [Fragment("master", "w", 0, torch.ones(numel, device=work.device))]
    heard = Listener()
    writer = CheckpointWriter(
        lambda: iter(state),
        work=work_folder(work.folder / "stall"),
        attempt="a",
        placement=placement(work),
        supervision=heard,  # type: ignore[arg-type]
    )
    with closing(writer):
        stalls = []
        for step in range(4):
            stalls.append(writer.save(make_header(step), final=False))
            writer.finish()
    if heard.failed:
        raise WrongResultError(heard.failed[0][1])
    stall = statistics.median(stalls[1:])
    aim = stall <= GOAL_SECONDS if work.is_gpu else None
    return Measurement(stall, "s", f"{4 * numel / 1e9:g} GB; aim {GOAL_SECONDS} s", aim)


@torch.no_grad()
def decoding(work: Work, precision: str) -> Measurement:
    """Measure beam search with random weights, whose translations reach the maximum length."""
    form = form_of(work, "base")
    seed_torch(1, "weights")
    network = form.build().eval().to(work.device)
    if precision == "bf16":
        network = network.bfloat16()
    source = batch_of(form, torch.device(work.device)).inputs[0][: 128 if work.is_gpu else 2]
    source[:, -1] = 3
    longest = DecodingConfig(beam_size=4, max_length_factor=1.0, max_extra_length=1)
    assert isinstance(network, Transformer)
    beam_search(network, source, longest)
    started = clock(placement(work))
    found = beam_search(network, source, longest)
    seconds = clock(placement(work)) - started
    made = sum(len(hypotheses[0].ids) + 1 for hypotheses in found)
    return Measurement(made / seconds, "target tokens/s", f"{len(found)} sentences at once")
