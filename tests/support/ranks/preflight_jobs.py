"""Jobs for a `RankPool` that try the widest micro-batches with different amounts of memory."""

import contextlib
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from cluster.recipe import Recipe
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.tasks.translation import TASK, PairShape
from model.networks.transformer import Transformer
from support.ranks.engine_jobs import (
    SPECIAL,
    VOCABULARY,
    Shape,
    full_weights,
    make_engine,
    train_steps,
)
from support.tasks import opened_task
from trainer.assembly.engine import build_engine
from trainer.errors import MemoryPreflightError
from trainer.memory import device_memory
from trainer.memory.preflight import preflight, run_preflight
from trainer.process import host_memory
from trainer.process.placement import Placement
from trainer.tasks.batch import PairBatch, to_device
from trainer.zero import fragments
from trainer.zero.engine import TrainingEngine


def train_after_preflight(
    placement: Placement, shape: Shape, steps: int, widest: Sequence[PairShape]
) -> Any:
    """Return losses and weights of a run that begins with a preflight."""
    engine = make_engine(placement, shape)
    fragments.create_moments(engine, 0)
    _try(engine, widest, 1000)
    losses = train_steps(engine, 1, steps)
    weights = full_weights(engine)
    engine.destroy()
    return losses, weights


def rows_tried(
    placement: Placement, widest: Sequence[PairShape], ample_shares: Sequence[float]
) -> list[int]:
    """Return the number of sentences in each forward pass of the preflight."""
    encode, rows = Transformer.encode, []

    def watched(model: Transformer, source: torch.Tensor, *arguments: Any) -> torch.Tensor:
        rows.append(len(source))
        return encode(model, source, *arguments)

    engine = make_engine(placement, Shape(1))
    with patch.object(Transformer, "encode", watched):
        _try(engine, widest, 1000, ample_shares[placement.rank])
    engine.destroy()
    return rows


def passes_before_step_one(
    placement: Placement, values: dict[str, Any], available: Sequence[int]
) -> int:
    """Return the number of forward passes in a preflight, given the bytes of each rank's host."""
    recipe = Recipe.of(values)
    task, (store, manifest) = opened_task(recipe.training())
    engine = build_engine(recipe.training(), task, placement)
    fragments.create_moments(engine, 0)
    scoring = task.scoring(load_heldout(store, manifest, "validation"))
    encode, passes = Transformer.encode, []

    def watched(model: Transformer, *arguments: Any) -> torch.Tensor:
        passes.append(None)
        return encode(model, *arguments)

    bytes_left = available[placement.rank] * placement.local_world_size
    with (
        patch.object(Transformer, "encode", watched),
        patch.object(host_memory, "available_bytes", lambda: bytes_left),
    ):
        run_preflight(engine, task, scoring, engine.inference_model)
    engine.destroy()
    return len(passes)


def shortage(
    placement: Placement,
    shape: Shape,
    widest: Sequence[PairShape],
    budget: int,
    most_tokens: Sequence[float],
) -> str:
    """Return the preflight's error if each rank has memory for this number of target tokens."""
    decode = Transformer.decode

    def limited(model: Transformer, target: torch.Tensor, *arguments: Any) -> torch.Tensor:
        if target.numel() > most_tokens[placement.rank]:
            raise torch.OutOfMemoryError("out of memory")
        return decode(model, target, *arguments)

    engine = make_engine(placement, shape)
    with patch.object(Transformer, "decode", limited):
        return _error_of(engine, widest, budget)


def shortage_of_addresses(
    placement: Placement,
    shape: Shape,
    widest: Sequence[PairShape],
    budget: int,
    spare_bytes: Sequence[int | None],
) -> str:
    """Return the preflight's error if each rank can allocate this number of additional bytes.

    A process keeps memory that it has allocated once, so the process should be new.
    """
    engine = make_engine(placement, shape)
    train_steps(engine, 1, 1)
    with _at_most(spare_bytes[placement.rank]):
        return _error_of(engine, widest, budget)


def shortage_of_bucket(
    placement: Placement,
    shape: Shape,
    widest: Sequence[PairShape],
    budget: int,
    spare_bytes: Sequence[int | None],
    elements: int,
) -> str:
    """Return the result of `shortage_of_addresses` with a gradient bucket of this many elements."""
    with patch("trainer.zero.engine.bucket_elements", lambda model: elements):
        return shortage_of_addresses(placement, shape, widest, budget, spare_bytes)


def shortage_of_host(
    placement: Placement, widest: Sequence[PairShape], budget: int, available: int
) -> str:
    """Return the preflight's error if the host reports this number of available bytes."""
    engine = make_engine(placement, Shape(1))
    train_steps(engine, 1, 1)
    with patch.object(host_memory, "available_bytes", lambda: available):
        return _error_of(engine, widest, budget)


def shortage_of_gpu(
    placement: Placement,
    shape: Shape,
    widest: Sequence[PairShape],
    budget: int,
    spare_bytes: int,
) -> str:
    """Return the preflight's error if the GPU has this number of bytes left for this process."""
    engine = make_engine(placement, shape)
    train_steps(engine, 1, 1)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(placement.torch_device).total_memory
    allowed = torch.cuda.memory_reserved() + spare_bytes
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    return _error_of(engine, widest, budget)


def _try(
    engine: TrainingEngine, widest: Sequence[PairShape], budget: int, ample_share: float = 0.0
) -> None:
    """Try the shapes; without a share, no memory is ample, so that all shapes are tried."""

    def synthetic(shape: PairShape) -> PairBatch:
        device = engine.placement.torch_device
        return to_device(TASK.synthetic(shape, SPECIAL), VOCABULARY, device)

    with patch.object(device_memory, "AMPLE_SHARE", ample_share):
        preflight(engine, widest, budget, synthetic)


def _error_of(engine: TrainingEngine, widest: Sequence[PairShape], budget: int) -> str:
    try:
        _try(engine, widest, budget)
    except MemoryPreflightError as error:
        return str(error)
    finally:
        engine.destroy()
    return ""


@contextlib.contextmanager
def _at_most(spare_bytes: int | None) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if spare_bytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + spare_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
