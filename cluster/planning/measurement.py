"""Train a few steps with one rank in this process: the real network, batches and loop.

    recipe, dataset ──▶ engine, task, data ──▶ trainer.training.loop.Trainer ──▶ lines, memory

A measurement writes no metrics file and no checkpoint, and stops the loop after enough steps. This
module imports torch and DeepSpeed.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from cluster.planning.speed import Speed, speed_of
from cluster.ranks.reports import Mailbox
from cluster.recipe import Recipe
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import local_rank_steps
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.storage.store import DatasetStore
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.errors import MemoryPreflightError
from trainer.job.rank_job import RankContext, RankJob
from trainer.memory.device_memory import is_out_of_memory
from trainer.process import host_memory
from trainer.process.device_peaks import peak_of_rank
from trainer.process.distributed import process_group
from trainer.process.placement import Placement
from trainer.record.metrics_lines import Line, TrainLine
from trainer.record.recorder_protocol import NoRecorder

WARM_UP_STEPS = 2
LEAST_STEPS, MOST_STEPS = 3, 30  # measured steps
MAX_MEASURED_SECONDS = 10.0
NEVER = 10**9


@dataclass(frozen=True)
class Measurement:
    """Speed and memory of a few steps of one rank.

    Attributes:
        state_bytes: memory of the process with weights, moments and the copy for checkpoints.
        step_bytes: additional peak memory of the steps: gradients and activations.
    """

    speed: Speed
    device: str
    state_bytes: int
    step_bytes: int


class _MeasuringSupervision(Mailbox, NoRecorder):
    """Supervision and recorder of the measured rank, which keep its lines and limit its steps.

    In each step, the loop first calls `stop_requested`, and then `append` with the step's line.
    No supervisor receives the reports.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[TrainLine] = []
        self._since = time.monotonic()

    def append(self, line: Line) -> None:
        if isinstance(line, TrainLine):
            self.lines.append(line)
            if len(self.lines) == WARM_UP_STEPS:
                self._since = time.monotonic()

    def stop_requested(self) -> bool:
        measured = len(self.lines) + 1 - WARM_UP_STEPS  # includes the current step
        if measured < LEAST_STEPS:
            return False
        return measured >= MOST_STEPS or time.monotonic() - self._since > MAX_MEASURED_SECONDS

    @property
    def measured(self) -> list[TrainLine]:
        return self.lines[WARM_UP_STEPS:][::-1]


def can_measure(recipe: Recipe) -> str | None:
    """Return the reason why this machine cannot train a step of the recipe, or None if it can."""
    if recipe.cluster.gpus_per_rank and not torch.cuda.is_available():
        return "its ranks need GPUs, but torch finds no GPU on this machine"
    return None


def measure(recipe: Recipe, store: DatasetStore, manifest: Manifest) -> Measurement:
    """Train a few steps from random weights, with one rank in this process.

    Raises:
        MemoryPreflightError: a step does not fit into memory.
    """
    placement = Placement(
        device="cuda" if recipe.cluster.gpus_per_rank else "cpu",
        threads=recipe.cluster.threads_per_rank,
    )
    supervision = _MeasuringSupervision()
    with process_group(placement, timedelta(minutes=1)), ExitStack() as resources:
        try:
            state_bytes, step_bytes = _train(
                _endless(recipe), store, manifest, placement, supervision, resources
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryPreflightError(
                f"A step does not fit into the memory of this machine: {error}. Lower "
                "batching.max_tokens_per_micro_batch; this requires a new run"
            ) from error
    speed = speed_of(supervision.measured, "a few steps of one rank here")
    assert speed is not None
    return Measurement(speed, placement.device, state_bytes, step_bytes)


def _endless(recipe: Recipe) -> Recipe:
    """Return the recipe with endless steps, and without validations, checkpoints and warm start."""
    return recipe.with_values(
        trainer={
            "max_steps": NEVER,
            "validate_every_steps": NEVER,
            "init_from": None,
            "early_stopping": None,
        },
        checkpoints={"every_steps": NEVER},
    )


def _train(
    recipe: Recipe,
    store: DatasetStore,
    manifest: Manifest,
    placement: Placement,
    supervision: _MeasuringSupervision,
    resources: ExitStack,
) -> tuple[int, int]:
    """Train until enough steps are measured.

    Returns:
        The bytes of the state, and the additional bytes of the steps.
    """
    from trainer.assembly.callbacks import build_guards
    from trainer.assembly.engine import build_engine  # DeepSpeed, which reads the environment
    from trainer.state.restore import begin
    from trainer.state.saving import NoSaver
    from trainer.tasks.task import training_task
    from trainer.training.callbacks import Callbacks
    from trainer.training.loop import Trainer
    from trainer.training.validation import Validator

    job = _job(recipe, manifest)
    context = RankContext(job, placement, supervision)
    task = training_task(job.recipe, manifest, load_tokenizers(store, manifest))
    engine = build_engine(job.recipe, task, placement)
    resources.callback(engine.destroy)
    state = begin(engine, context)
    reader = WindowReader(store, manifest, recipe.data_settings)
    scoring = task.scoring(load_heldout(store, manifest, "validation"))
    trainer = Trainer(
        context,
        state,
        task,
        steps=lambda cursor: local_rank_steps(
            reader, cursor, 0, 1, recipe.batching.micro_batches_per_step
        ),
        validator=Validator(scoring, placement, recipe.trainer.validation_scores),
        saver=NoSaver(),
        recorder=supervision,
        callbacks=Callbacks(guards=build_guards(job.recipe, state.progress)),
        resources=ExitStack(),
        peak_flops_per_second=peak_of_rank(recipe.engine, placement).flops_per_second,
    )
    before = _bytes_now(placement)
    trainer.train()
    return before, _most_bytes(placement) - before


def _job(recipe: Recipe, manifest: Manifest) -> RankJob:
    nowhere = Path("/nonexistent")  # nothing is written
    return RankJob(
        recipe=recipe.training(),
        run=nowhere,
        manifest=manifest.header(),
        checkpoint=None,
        cursor=Cursor(),
        work=nowhere,
        attempt="plan",
        session_started=time.time(),
    )


def _bytes_now(placement: Placement) -> int:
    if placement.device == "cuda":
        torch.cuda.reset_peak_memory_stats(placement.torch_device)
        return int(torch.cuda.memory_allocated(placement.torch_device))
    host_memory.release_freed_memory()
    host_memory.restart_peak()
    return host_memory.resident_bytes()


def _most_bytes(placement: Placement) -> int:
    if placement.device == "cuda":
        return int(torch.cuda.max_memory_reserved(placement.torch_device))
    return host_memory.peak_resident_bytes()
