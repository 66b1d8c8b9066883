"""Construction of a rank, all in one place: dataset → model → engine → data → trainer."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import torch
from torch import nn

from data_pipeline.batching.heldout import check_heldout, load_heldout
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from data_pipeline.dataset.manifest import open_dataset_store
from data_pipeline.storage.regular_files import write_atomically
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from run_store.checkpoints.checkpoint import SavedState
from run_store.record.metrics_file import MetricsFile
from run_store.record.metrics_lines import Line
from run_store.run_copies import register_copy
from trainer.assembly.callbacks import build_guards, build_observers
from trainer.assembly.engine import build_engine, task_of, with_compiled_layers
from trainer.config import EngineConfig
from trainer.job.rank_job import RankContext, RankJob, Supervision
from trainer.memory.preflight import run_preflight
from trainer.process.device_peaks import peak_of_rank
from trainer.process.distributed import sum_over_ranks
from trainer.process.network import record_network
from trainer.process.placement import Placement
from trainer.state import numerics
from trainer.state.kernel_fingerprint import require_equal_kernels
from trainer.state.restore import begin, record_resumption, restore
from trainer.state.saving import NoSaver, Saver
from trainer.state.verification import SharedVerification
from trainer.tasks.task import ValidationResult, training_task
from trainer.tracking.recorder import Recorder
from trainer.tracking.recorder_protocol import NoRecorder
from trainer.tracking.wandb_config import facts_for_wandb
from trainer.training.callbacks import Callbacks
from trainer.training.loop import Trainer
from trainer.training.prober import Prober
from trainer.training.slot_checks import SlotChecks
from trainer.training.slow_ranks import SlowRanks
from trainer.training.step_profiler import StepProfiler
from trainer.training.validation import Validator


def build_trainer(context: RankContext, steps: Callable[[Cursor], Iterator[RankStep]]) -> Trainer:
    """Return the trainer of one rank of a run, at step 0 or at the step of a checkpoint.

    The process group must exist. `build_rank` describes the arguments.

    Raises:
        DamagedCheckpointError: the job requires the ranks to verify its checkpoint, and the
            checkpoint is not intact; raised on all ranks.
    """
    job, supervision = context.job, context.supervision
    recipe = job.recipe
    checkpoint = job.saved_state
    times = _BuildTimes()
    store, manifest = open_dataset_store(recipe.data), job.manifest
    tokenizers = load_tokenizers(store, manifest)
    task = training_task(recipe, manifest, tokenizers)
    times.end("tokenizers")
    context, compiled = with_compiled_layers(context, task)
    placement = context.placement
    times.end("compiled layers")
    with ExitStack() as resources:
        verification = None
        if checkpoint and job.verify_checkpoint:
            verification = SharedVerification(checkpoint, placement)
            resources.callback(verification.close)
        if recipe.engine.verify_every_steps and not compiled:  # compiling compares kernels, too
            require_equal_kernels(recipe.engine, placement)
        engine = build_engine(recipe, task, placement, compiled)
        resources.callback(engine.destroy)
        times.end("engine")
        heldout = load_heldout(store, manifest, "validation")
        check_heldout(heldout, "validation", recipe.data_settings, tokenizers, store.location)
        scoring = task.scoring(heldout)
        validator = Validator(scoring, placement, recipe.trainer.validation_scores)
        times.end("held-out data")
        if verification:
            verification.require_intact()
        times.end("verification")
        state = restore(engine, job, checkpoint) if checkpoint else begin(engine, context)
        times.end("state")
        peak = peak_of_rank(recipe.engine, placement)
        record_network(context.run.network, placement)
        recorder = _recorder(context, checkpoint) if placement.rank == 0 else None
        if recorder:
            backend = numerics.attention_backend(recipe.engine, placement)
            supervision.log_detail(f"attention is computed by {backend}")
            if slow := numerics.slow_precision(recipe.engine, placement):
                supervision.notice(slow)
            if peak.unknown:
                supervision.notice(peak.unknown)
            if engine.frozen.names:
                supervision.notice(engine.frozen.summary_text(engine.parameter_shapes))
            resources.callback(recorder.close)
        saver = Saver(context, state, recorder.sync if recorder else lambda: None)
        resources.callback(saver.close)
        times.end("recorder and buffers")
        checks = SlotChecks(
            recipe.engine.verify_every_steps,
            slots=recipe.batching.micro_batches_per_step,
            parameters=engine.trained,
            placement=placement,
            first_step=state.progress.step,
        )
        if recorder and checks.schedule_text:
            supervision.notice(checks.schedule_text)
        profiler = StepProfiler(job.profile, context.run, placement.rank, supervision.notice)
        resources.callback(profiler.close)
        time_lapse = context.run.time_lapse if recorder else None
        sentences = recipe.tracking.probe_sentences
        callbacks = Callbacks(
            [
                Prober(task, sentences, time_lapse, state, supervision),
                SlowRanks(placement, recorder or NoRecorder()),
                profiler,
                *build_observers(context),
            ],
            build_guards(recipe, state.progress),
        )
        if _preflight_is_due(checkpoint, recipe.engine, placement):
            run_preflight(engine, task, scoring, state.inference_model)
            times.end("memory preflight")
        if recorder:
            record_resumption(recorder, context, checkpoint)
        supervision.log_detail(times.text)
        return Trainer(
            context,
            state,
            task,
            steps=steps,
            validator=validator,
            saver=saver,
            recorder=recorder or NoRecorder(),
            callbacks=callbacks,
            resources=resources.pop_all(),
            peak_flops_per_second=peak.flops_per_second,
            checks=checks,
        )


def _recorder(context: RankContext, checkpoint: SavedState | None) -> Recorder:
    job, run = context.job, context.run
    return Recorder(
        run,
        job.recipe,
        resume_step=checkpoint.step if checkpoint else 0,
        session_started=job.session_started,
        supervision=context.supervision,
        wandb_facts=partial(facts_for_wandb, run, job.manifest, context.placement, checkpoint),
    )


class _BuildTimes:
    """Durations of the stages in which a rank is built, for the log."""

    def __init__(self) -> None:
        self._started = self._since = time.monotonic()
        self._stages: list[str] = []

    def end(self, stage: str) -> None:
        """Record the end of a stage, which began when the previous stage ended."""
        now = time.monotonic()
        self._stages.append(f"{stage} {now - self._since:.3f}")
        self._since = now

    @property
    def text(self) -> str:
        return f"built in {self._since - self._started:.3f} s: {', '.join(self._stages)}"


def _preflight_is_due(
    checkpoint: SavedState | None, engine: EngineConfig, placement: Placement
) -> bool:
    """Return whether the memory preflight must run; the same on all ranks.

    It must run at step 0. It must run when a checkpoint is resumed if the numerics fingerprint of
    any rank has changed since the checkpoint, or if activation checkpointing was turned off.
    """
    if checkpoint is None:
        return True
    now = numerics.fingerprint(engine, placement)
    before = checkpoint.header.recipe["engine"].get("activation_checkpointing", False)
    keeps_more = before and not engine.activation_checkpointing
    due = keeps_more or bool(numerics.differences(checkpoint.header.numerics, now))
    return bool(sum_over_ranks(torch.tensor([float(due)]), placement).item())


def build_rank(
    job: RankJob,
    *,
    placement: Placement,
    steps: Callable[[Cursor], Iterator[RankStep]],
    supervision: Supervision,
) -> Trainer:
    """Return the trainer of one rank of a run or, if the job has replay options, of a replay.

    Args:
        job: the run, and its checkpoint or warm start.
        placement: this rank and its device.
        steps: opens this rank's stream of data at a cursor.
        supervision: receives the rank's reports.
    """
    context = RankContext(job, placement, supervision)
    if job.replay is None:
        return build_trainer(context, steps)
    if job.replay.url:
        register_copy(job.run, job.replay.url)

    return build_replay(context, steps)


class NoValidator:
    """Validator of a replay, which does not repeat validations."""

    def run(self, model: nn.Module, stop_requested: Callable[[], bool]) -> ValidationResult:
        return ValidationResult({})


class ReplayRecorder(MetricsFile):
    """Recorder of a replay, which writes only to the metrics file of the scratch folder."""

    def __init__(self, context: RankContext, first_step: int) -> None:
        """Open the metrics file of the scratch folder.

        Args:
            context: the job of the rank.
            first_step: the step of the checkpoint at which the replay begins, or 0.
        """
        super().__init__(context.run.metrics, first_step, context.supervision.notice)
        self._supervision = context.supervision

    def append(self, line: Line) -> None:
        super().append(line)
        self._supervision.line(line)

    def record_texts(self, step: int, texts: list[str]) -> None:
        """Do nothing: a replay does not validate."""


def build_replay(context: RankContext, steps: Callable[[Cursor], Iterator[RankStep]]) -> Trainer:
    """Return the trainer of one rank of a replay, at step 0 or at the step of a checkpoint.

    It has a step inspector and the run's guards. It has no validation, no checkpoints, no W&B and
    no observers of a run, because they do not affect a step. See `build_rank` for the arguments.
    """
    from trainer.replay.step_inspector import StepInspector  # a run does not need it

    job = context.job
    recipe, order = job.recipe, job.replay
    assert order is not None
    checkpoint = job.saved_state
    task = task_of(job)
    context, compiled = with_compiled_layers(context, task)
    placement = context.placement
    with ExitStack() as resources:
        engine = build_engine(recipe, task, placement, compiled)
        resources.callback(engine.destroy)
        state = restore(engine, job, checkpoint) if checkpoint else begin(engine, context)
        recorder = None
        if placement.rank == 0:
            recorder = ReplayRecorder(context, checkpoint.step if checkpoint else 0)
            resources.callback(recorder.close)
            fingerprint = numerics.fingerprint(recipe.engine, placement)
            write_atomically(order.numerics_file, json.dumps(fingerprint))
        saver: Saver | NoSaver = NoSaver()
        if order.goes_on:
            saver = Saver(context, state, recorder.sync if recorder else lambda: None)
            resources.callback(saver.close)
        step_inspector = StepInspector(order, context, state, task)
        return Trainer(
            context,
            state,
            task,
            steps=step_inspector.observed_stream(steps),
            validator=NoValidator(),
            saver=saver,
            recorder=recorder or NoRecorder(),
            callbacks=Callbacks([step_inspector], build_guards(recipe, state.progress)),
            resources=resources.pop_all(),
        )
