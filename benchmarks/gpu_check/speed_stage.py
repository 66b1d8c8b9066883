"""Stage *speed*: measure training against a plain torch loop, and attention, stalls and decoding.

On a GPU, the sizes are those of the papers. On a CPU they are tiny, and the figures mean nothing.
Aims are reported as met or missed; a missed aim is not a failure. The plain loop trains the same
network in bf16 with torch's fused AdamW, without master weights, ZeRO, digests or a metrics file.
"""

import statistics
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache

import torch
from support.records.checkpoints import Listener, work_folder
from torch import Tensor, nn

import benchmarks.gpu_check.path_stage as commands
from benchmarks.checkpoint_stall import GOAL_SECONDS
from benchmarks.exact_cost import clock
from benchmarks.gpu_check.engine_stage import placement
from benchmarks.gpu_check.outcomes import CannotRunError, Measurement, Work, WrongResultError
from benchmarks.support.checkpoint_headers import bare_header
from benchmarks.support.engine_step import summed
from model.blocks.attention import additive_mask
from model.blocks.attention import attention as attend
from model.blocks.packing import PackedMask, packings
from model.blocks.varlen import packed_attention
from model.config.decoder_only import DecoderOnlyConfig
from model.config.transformer import AttentionBackend, DecodingConfig, ModelConfig
from model.flops import BatchSizes, decoder_only_flops, encoder_decoder_flops
from model.generation.search import beam_search
from model.losses.loss import CrossEntropy
from model.networks.decoder_only import DecoderOnly
from model.networks.transformer import Transformer, Vocabulary
from trainer.checkpoints.writer import CheckpointWriter
from trainer.config import EngineConfig
from trainer.process.device_peaks import peak_flops
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch
from trainer.tasks.randomness import seed_torch
from trainer.zero.disable_compiler import AdamW
from trainer.zero.engine import TrainingEngine
from trainer.zero.fragment import Fragment

PLAIN_LOSS = CrossEntropy(0.1)
MOST_BELOW_PLAIN = 0.05
BIG_TOKENS_PER_SECOND = 101_000
BIG_MFU = 0.30
MOST_DATA_STALL = 0.02
WARM_UP, STEPS, ROUNDS = 3, 10, 2
SLOTS = 2  # micro-batches per step


@dataclass(frozen=True)
class Size:
    """Network and the micro-batch for its measurement: rows of equal length without padding."""

    config: ModelConfig | DecoderOnlyConfig
    vocabulary: int
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        """Number of target tokens in a micro-batch."""
        return self.rows * self.length

    def build(self) -> nn.Module:
        seed_torch(1, "weights")
        if isinstance(self.config, ModelConfig):
            words = Vocabulary(self.vocabulary, self.vocabulary, pad_id=0, bos_id=2, eos_id=3)
            return Transformer(self.config, words)
        return DecoderOnly(self.config, self.vocabulary, 0, self.length)

    def inputs(self, device: torch.device) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(1)
        shape = (3, self.rows, self.length)
        ids = torch.randint(4, self.vocabulary, shape, generator=generator).to(device)
        if isinstance(self.config, ModelConfig):
            return ids[0], ids[1], ids[2]
        return ids[0], ids[1], torch.zeros_like(ids[0])


BIG = ModelConfig(width=1024, feed_forward_width=4096, heads=16)
GPT = DecoderOnlyConfig(preset="gpt2", layers=24, width=1024, heads=16, dropout=0.1)
SIZES = {
    "base": Size(ModelConfig(), 37_000, 400, 32),
    "big": Size(BIG, 37_000, 400, 32),
    "gpt": Size(GPT, 50_304, 8, 1024),
}
_TINY = {"width": 32, "heads": 2, "dropout": 0.1}
TINY_SIZES = {
    "base": Size(ModelConfig(encoder_layers=1, decoder_layers=1, **_TINY), 100, 4, 8),
    "big": Size(ModelConfig(encoder_layers=2, decoder_layers=2, **_TINY), 100, 4, 8),
    "gpt": Size(DecoderOnlyConfig(preset="gpt2", layers=2, **_TINY), 100, 4, 8),
}


@dataclass(frozen=True)
class Speed:
    """Seconds per step of the engine and of the plain loop, and target tokens per step."""

    engine: float
    plain: float
    tokens: int


def size_of(work: Work, network: str) -> Size:
    return (SIZES if work.is_gpu else TINY_SIZES)[network]


@cache
def speed(work: Work, network: str) -> Speed:
    """Measure steps of the engine and of the plain loop in turn."""
    size = size_of(work, network)
    by_kind: dict[str, list[float]] = {"engine": [], "plain": []}
    for _ in range(ROUNDS if work.is_gpu else 1):
        for kind, measure in (("engine", _engine_seconds), ("plain", _plain_seconds)):
            by_kind[kind].append(measure(work, size))
            if work.is_gpu:
                torch.cuda.empty_cache()
    return Speed(
        statistics.median(by_kind["engine"]),
        statistics.median(by_kind["plain"]),
        SLOTS * size.tokens,
    )


def _seconds_of_a_step(work: Work, step: Callable[[], None]) -> float:
    warm_up, steps = (WARM_UP, STEPS) if work.is_gpu else (1, 2)
    for _ in range(warm_up):
        step()
    started = clock(placement(work))
    for _ in range(steps):
        step()
    return (clock(placement(work)) - started) / steps


def _engine_seconds(work: Work, size: Size) -> float:
    engine = TrainingEngine(
        size.build,
        engine=EngineConfig(precision="bf16", zero_stage=1),
        optimizer=OptimizerConfig(),
        gradient_clipping=1.0,
        loss=PLAIN_LOSS,
        micro_batches_per_step=SLOTS,
        placement=placement(work),
    )
    inputs = size.inputs(placement(work).torch_device)
    batch = DeviceBatch(inputs, digest=bytes(32), padding=0, positions=size.tokens)

    def step() -> None:
        summed(engine, batch, size.tokens, SLOTS)
        engine.step(1e-4)

    seconds = _seconds_of_a_step(work, step)
    engine.destroy()
    return seconds


def _plain_seconds(work: Work, size: Size) -> float:
    device = placement(work).torch_device
    network = size.build().to(device, torch.bfloat16)
    optimizer = AdamW(network.parameters(), lr=1e-4, fused=True)
    inputs = size.inputs(device)

    def step() -> None:
        for _ in range(SLOTS):
            (network(*inputs, PLAIN_LOSS).smoothed / (SLOTS * size.tokens)).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _seconds_of_a_step(work, step)


def tokens(work: Work, network: str) -> Measurement:
    found = speed(work, network)
    rate = found.tokens / found.engine
    aim = rate >= BIG_TOKENS_PER_SECOND if network == "big" and work.is_gpu else None
    return Measurement(rate, "target tokens/s", f"{found.tokens} a step", aim)


def beside_plain(work: Work, network: str) -> Measurement:
    found = speed(work, network)
    below = 1 - found.plain / found.engine
    aim = below <= MOST_BELOW_PLAIN if work.is_gpu else None
    rate = found.tokens / found.plain
    return Measurement(100 * below, "% below", f"the plain loop: {rate:,.0f} target tokens/s", aim)


def tflops(work: Work, network: str) -> Measurement:
    rate = step_flops(work, network) / speed(work, network).engine
    return Measurement(rate / 1e12, "TFLOP/s")


def mfu(work: Work, network: str) -> Measurement:
    rate = step_flops(work, network) / speed(work, network).engine
    if not work.is_gpu:
        raise CannotRunError("the peak FLOP/s of a CPU is not known")
    name = torch.cuda.get_device_name(0)
    peak = peak_flops(name, "bf16")
    if peak is None:
        raise CannotRunError(f"the peak FLOP/s of {name} is not known")
    share = rate / peak
    return Measurement(
        100 * share, "% of the peak", aim=share >= BIG_MFU if network == "big" else None
    )


def step_flops(work: Work, network: str) -> float:
    """Return the model's floating-point operations in the forward and backward pass of a step."""
    size = size_of(work, network)
    n, pairs = size.tokens, size.rows * size.length**2
    if isinstance(size.config, ModelConfig):
        count = encoder_decoder_flops(size.config, size.vocabulary)
        sizes = BatchSizes(
            tokens=n, pairs=pairs, target_tokens=n, target_pairs=pairs, cross_pairs=pairs, outputs=n
        )
    else:
        count = decoder_only_flops(size.config, size.vocabulary)
        sizes = BatchSizes(tokens=n, pairs=pairs, outputs=n)
    return float(SLOTS * count.of(sizes, sizes).model)


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

    sdpa, varlen = (_seconds_of_a_step(work, step) for step in (by_sdpa, by_varlen))
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
            stalls.append(writer.save(bare_header(step), final=False))
            writer.finish()
    if heard.failed:
        raise WrongResultError(heard.failed[0][1])
    stall = statistics.median(stalls[1:])
    aim = stall <= GOAL_SECONDS if work.is_gpu else None
    return Measurement(stall, "s", f"{4 * numel / 1e9:g} GB; aim {GOAL_SECONDS} s", aim)


@torch.no_grad()
def decoding(work: Work, precision: str) -> Measurement:
    """Measure beam search with random weights, whose translations reach the maximum length."""
    size = size_of(work, "base")
    network = size.build().eval().to(work.device)
    if precision == "bf16":
        network = network.bfloat16()
    source = size.inputs(torch.device(work.device))[0][: 128 if work.is_gpu else 2]
    source[:, -1] = 3
    longest = DecodingConfig(beam_size=4, max_length_factor=1.0, max_extra_length=1)
    assert isinstance(network, Transformer)
    beam_search(network, source, longest)
    started = clock(placement(work))
    found = beam_search(network, source, longest)
    seconds = clock(placement(work)) - started
    made = sum(len(hypotheses[0].ids) + 1 for hypotheses in found)
    return Measurement(made / seconds, "target tokens/s", f"{len(found)} sentences at once")
