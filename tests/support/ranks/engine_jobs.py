"""Jobs for a `RankPool` that train a small model on random pairs, with the engine but no loop."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.batching.plan import slots_of_rank
from data_pipeline.dataset.manifest_header import SpecialIds
from data_pipeline.tasks.translation import TASK
from model.config.transformer import AttentionBackend, ModelConfig
from model.losses.loss import CrossEntropy
from model.losses.r_drop import RDrop
from model.networks.transformer import Transformer, Vocabulary
from run_store.checkpoints.checkpoint import Checkpoint
from run_store.checkpoints.reader import CheckpointReader
from support.records.checkpoints import commit_state, make_header, work_folder, write_state
from trainer.config import EngineConfig
from trainer.process.placement import Placement
from trainer.registries.optimizers import OptimizerConfig
from trainer.tasks.batch import DeviceBatch, to_device
from trainer.tasks.randomness import seed_torch
from trainer.training.step_exchange import StepReport, exchange
from trainer.zero import fragments, gradient_buckets, stages
from trainer.zero.compiled_layers import compile_network
from trainer.zero.engine import TrainingEngine
from trainer.zero.settings import parameter_groups

VOCABULARY = Vocabulary(source_size=37, target_size=37, pad_id=0, bos_id=2, eos_id=3)
SPECIAL = SpecialIds(pad=0, unk=1, bos=2, eos=3)
# Widths and sizes that are not divisible by 2 or 3 ranks.
MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, width=20, feed_forward_width=34, heads=2, dropout=0.1
)
# Heads have width 16, because the flash kernel needs a multiple of 8.
PACKED_MODEL = MODEL.model_copy(update={"width": 32})
# Sizes that are multiples of 8, so that ZeRO moves no parameter to an odd address.
COMPILED_MODEL = PACKED_MODEL.model_copy(update={"feed_forward_width": 64})
SLOTS, ROWS = 5, 4
SMOOTHING = 0.1
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Shape:
    """Options that may differ between two runs of one recipe."""

    zero_stage: int
    precision: str = "fp32"
    activation_checkpointing: bool = False
    numerics: str = "fast"
    verify_reductions: bool = False
    attention: AttentionBackend | None = None
    compile: str = "none"


def make_model(
    config: ModelConfig = MODEL, attention: AttentionBackend | None = None
) -> Transformer:
    seed_torch(1, "weights")
    return Transformer(config, VOCABULARY, attention)


def plain_loop(
    model: Transformer, steps: int, clipping: float = 0.0, optimizer: Any = None
) -> tuple[list[float], list[float]]:
    """Return the losses and gradient norms of the same training without DeepSpeed.

    It uses autograd, torch's clipping, and torch's AdamW or another optimizer.
    """
    optimizer = optimizer or torch.optim.AdamW(
        parameter_groups(model, 0.01), lr=0.01, betas=(0.9, 0.98), eps=1e-9
    )
    losses, norms = [], []
    for step in range(1, steps + 1):
        batches = [micro_batch(step, slot) for slot in range(SLOTS)]
        tokens = sum(batch.tokens("tgt") for batch in batches)
        total = 0.0
        for slot, read in enumerate(batches):
            batch = to_device(read, VOCABULARY, torch.device("cpu"))
            seed_torch(1, "dropout", step, slot)
            sums = model(*batch.inputs, CrossEntropy(SMOOTHING))
            (sums.smoothed / tokens).backward()
            total += float(sums.smoothed.detach())
        largest = clipping or float("inf")
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), largest).item())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total / tokens)
    return losses, norms


def make_engine(
    placement: Placement,
    shape: Shape,
    clipping: float = 0.0,
    model: Transformer | None = None,
    optimizer: str = "adamw",
    frozen: tuple[str, ...] = (),
) -> TrainingEngine:
    given = [model] if model else []
    packed = shape.attention is AttentionBackend.VARLEN
    config = PACKED_MODEL if packed else COMPILED_MODEL if shape.compile == "layers" else MODEL
    config = model.config if model else config
    settings, compiled = EngineConfig(**asdict(shape)), None
    if shape.compile == "layers":
        network = make_model(config, shape.attention)
        compiled = compile_network(network, settings, ROWS, placement)
    return TrainingEngine(
        lambda: given.pop() if given else make_model(config, shape.attention),
        engine=settings,
        optimizer=OptimizerConfig(type=optimizer, weight_decay=0.01),
        gradient_clipping=clipping,
        loss=CrossEntropy(SMOOTHING),
        micro_batches_per_step=SLOTS,
        placement=placement,
        frozen=frozen,
        compiled=compiled,
    )


def micro_batch(step: int, slot: int) -> MicroBatch:
    """Return random pairs that depend only on the coordinate."""
    random = np.random.default_rng([step, slot])
    fields = {}
    for name in ("src", "tgt"):
        lengths = random.integers(2, 9, size=ROWS).astype(np.int32)
        ids = random.integers(4, 37, size=lengths.sum()).astype(np.int32)
        ids[np.cumsum(lengths) - 1] = VOCABULARY.eos_id
        fields[name] = FieldArrays(ids=ids, lengths=lengths)
    return MicroBatch(pair_ids=np.arange(ROWS) + 100 * slot, fields=fields)


def accumulate(
    engine: TrainingEngine, step: int, before_pass: Callable[[int | None], None] = lambda slot: None
) -> tuple[StepReport, int]:
    """Run a step's passes and exchange their results; also return the step's target tokens.

    ``before_pass`` is called with each pass's slot, or None for a dummy.
    """
    device = engine.placement.torch_device
    tokens = sum(micro_batch(step, slot).tokens("tgt") for slot in range(SLOTS))

    def batch_of(slot: int | None) -> DeviceBatch:
        read = TASK.dummy(SPECIAL) if slot is None else micro_batch(step, slot)
        batch = to_device(read, VOCABULARY, device)
        before_pass(slot)
        return batch.twice() if isinstance(engine.loss, RDrop) else batch

    return run_passes(engine, step, batch_of, tokens), tokens


def run_passes(
    engine: TrainingEngine, step: int, batch_of: Callable[[int | None], DeviceBatch], units: int
) -> StepReport:
    """Run the passes of a step, and the exchange between the ranks.

    Args:
        batch_of: returns the batch of a slot, or with None that of a dummy pass.
        units: the loss units of all slots.
    """
    placement = engine.placement
    slots = slots_of_rank(placement.rank, placement.world_size, SLOTS)
    batches, results = [], []
    for index in range(engine.slots_per_rank):
        slot = slots[index] if index < len(slots) else None
        batch = batch_of(slot)
        if slot is not None:
            seed_torch(1, "dropout", step, slot)
        result = engine.forward_backward(
            batch,
            units_global=units,
            is_accumulation_boundary=index == engine.slots_per_rank - 1,
            is_dummy=slot is None,
        )
        if slot is not None:
            batches.append(batch)
            results.append(result)
    return exchange(
        slots,
        batches,
        results,
        micro_batches_per_step=SLOTS,
        data_stall_seconds=0.0,
        stop_requested=False,
        placement=placement,
    )


def train_steps(
    engine: TrainingEngine,
    first: int,
    last: int,
    before_pass: Callable[[int | None], None] = lambda slot: None,
) -> list[float]:
    """Return the losses of steps ``first … last``, which are the same on all ranks."""
    losses = []
    for step in range(first, last + 1):
        report, tokens = accumulate(engine, step, before_pass)
        while engine.refit(report.amax) is not None:
            report, tokens = accumulate(engine, step, before_pass)
        wrong = engine.wrong_reductions()
        assert not wrong, f"the checksums of {wrong} are wrong in step {step}"
        losses.append(report.sums[0] / tokens)
        engine.step(LEARNING_RATE, report.amax)
    return losses


def save(engine: TrainingEngine, folder: Path, step: int) -> Any:
    """Return a rank's state file, and the header that rank 0 would commit."""
    header = make_header(
        step,
        optimizer_step=fragments.optimizer_step(engine),
        parameters={n: list(s) for n, s in engine.parameter_shapes.items()},
        parameter_groups=engine.parameter_group_settings(),
        gradient_peaks=engine.grids.peaks if engine.grids else {},
        frozen=engine.frozen.names,
    )
    owned = fragments.owned_fragments(engine)
    return write_state(work_folder(folder), header, owned, engine.placement), header


def train(
    placement: Placement,
    shape: Shape,
    steps: int,
    clipping: float = 0.0,
    optimizer: str = "adamw",
) -> Any:
    """Return the losses of an undisturbed run, its full final weights, and its gradient norms."""
    engine = make_engine(placement, shape, clipping, optimizer=optimizer)
    norms = record_norms(engine)
    losses = train_steps(engine, 1, steps)
    weights = full_weights(engine)
    engine.destroy()
    return losses, weights, norms


def train_in_buckets(
    placement: Placement, shape: Shape, steps: int, clipping: float, capacity: int
) -> Any:
    """Return the result of `train` with buckets of this many elements, converted as on a GPU."""
    with (
        mock.patch.dict(gradient_buckets.CAPACITY, cpu=capacity),
        mock.patch.object(stages, "adds_other_types", return_value=False),
    ):
        return train(placement, shape, steps, clipping)


def record_norms(engine: TrainingEngine) -> list[float]:
    """Record the gradient norms of the engine's later steps in the returned list."""
    norms: list[float] = []
    step = engine.step

    def recording(learning_rate: float, amax: np.ndarray | None = None) -> float:
        norms.append(step(learning_rate, amax))
        return norms[-1]

    engine.step = recording  # type: ignore[method-assign]
    return norms


def train_poisoned(placement: Placement, shape: Shape, steps: int) -> list[float]:
    """Train like `train`, but set the gradients of dummies to NaN at the end of each backward."""
    model, passes = make_model(), []
    for parameter in model.parameters():  # these hooks run before the engine's hooks
        parameter.register_hook(lambda g: g if passes[-1] else torch.full_like(g, torch.nan))
    engine = make_engine(placement, shape, model=model)
    losses = train_steps(engine, 1, steps, lambda slot: passes.append(slot is not None))
    assert not all(passes) or placement.rank + 1 < placement.world_size
    engine.destroy()
    return losses


def train_and_save(
    placement: Placement,
    shape: Shape,
    steps: int,
    folder: Path,
    optimizer: str = "adamw",
    frozen: tuple[str, ...] = (),
) -> Any:
    engine = make_engine(placement, shape, optimizer=optimizer, frozen=frozen)
    losses = train_steps(engine, 1, steps)
    saved = save(engine, folder, steps)
    engine.destroy()
    return losses, saved


def resume(
    placement: Placement,
    shape: Shape,
    folder: Path,
    last: int,
    optimizer: str = "adamw",
    frozen: tuple[str, ...] = (),
) -> Any:
    """Return losses and weights of a run that continues a checkpoint with this shape."""
    checkpoint = Checkpoint(folder)
    engine = make_engine(placement, shape, optimizer=optimizer, frozen=frozen)
    reader = CheckpointReader(checkpoint)
    fragments.load_state(engine, reader.read_into, checkpoint.header.optimizer_step)
    if engine.grids:
        engine.grids.restore(checkpoint.header.gradient_peaks)
    loaded = {
        f"{f.kind}:{f.parameter}:{f.start}": f.tensor.cpu().clone()
        for f in fragments.held_fragments(engine)
    }
    exact = all(
        torch.equal(tensor, reader.read(kind, name, int(start), int(start) + tensor.numel()))
        for key, tensor in loaded.items()
        for kind, name, start in [key.split(":")]
    )
    losses = train_steps(engine, checkpoint.step + 1, last)
    weights = full_weights(engine)
    engine.destroy()
    return losses, weights, exact


def finish_run(engine: TrainingEngine, losses: list[float]) -> dict[str, Any]:
    """Train steps 3 and 4, destroy the engine, and return the run's results."""
    losses = losses + train_steps(engine, 3, 4)
    result = {
        "losses": losses,
        "weights": full_weights(engine),
        "peaks": engine.grids.peaks if engine.grids else {},
        "optimizer_step": fragments.optimizer_step(engine),
    }
    engine.destroy()
    return result


def train_without_the_second_step(placement: Placement, shape: Shape) -> dict[str, Any]:
    """Train steps 1, 3 and 4."""
    engine = make_engine(placement, shape)
    return finish_run(engine, train_steps(engine, 1, 1))


def full_weights(engine: TrainingEngine) -> dict[str, torch.Tensor]:
    with engine.inference_model() as model:
        return {name: p.detach().float().clone() for name, p in model.named_parameters()}


def committed(folder: Path, results: list[Any]) -> Path:
    """Commit the results of `save` on all ranks, and return the checkpoint's folder."""
    return commit_state(work_folder(folder), results[0][1], [file for file, _ in results]).path


def train_recording_gradients(placement: Placement, shape: Shape, steps: int) -> dict[str, Any]:
    """Train a network whose weights ZeRO-3 releases between forward and backward.

    Return digests of the weights, and of each pass's gradients at the end of the backward pass.
    """
    wide = MODEL.model_copy(
        update={"encoder_layers": 2, "decoder_layers": 2, "width": 192, "feed_forward_width": 640}
    )
    model, gradients, layers_run = make_model(wide), [], []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: gradients.append(digest(gradient)))
    for layer in (*model.encoder.layers, *model.decoder.layers):
        layer.register_forward_pre_hook(lambda *_: layers_run.append(None))
    engine = make_engine(placement, shape, model=model)
    found: dict[str, Any] = {"losses": train_steps(engine, 1, steps)}
    found["layers_run"] = len(layers_run)
    found["partitioned"] = [n for n, p in engine.module.named_parameters() if not p.numel()]
    found["weights"] = {name: digest(weight) for name, weight in full_weights(engine).items()}
    with engine.inference_model() as model:  # the memory preflight uses this model, too
        found["activation_checkpointing"] = model.encoder.recomputes_activations
    engine.destroy()
    return found | {"gradients": gradients}


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().float().numpy().tobytes()).hexdigest()
