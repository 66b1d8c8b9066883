"""The training loop of one rank.

In: a placement, a stream of this rank's micro-batches, and the state that the run was left in. Per
step: fetch, forward and backward over the rank's slots, one exchange with the other ranks, one
optimizer step, a line in the record; every so often a validation and a checkpoint. Out: an
`Outcome`.

Whatever changes the flow (a loss that is not finite, a request to stop, the end by early
stopping) is decided from what the ranks have exchanged, hence equally on all of them and before
the gradients are applied.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from trainer.batch import DeviceBatch, dummy_batch, to_device
from trainer.distributed import Placement
from trainer.errors import NonFiniteLossError
from trainer.profile import StepProfiler
from trainer.randomness import seed_torch
from trainer.rank_job import RankJob
from trainer.runs.folder import RunFolder
from trainer.state import early_stopping
from trainer.state.digest import fold
from trainer.state.ema import Ema
from trainer.state.progress import Progress
from trainer.state.saving import Saver
from trainer.supervision import Outcome, Supervision
from trainer.tracking.metrics import Line
from trainer.tracking.recorder import Recorder
from trainer.training.schedule import learning_rate
from trainer.training.skipped_steps import skipped_line, too_many_skipped
from trainer.training.step_exchange import StepReport, exchange
from trainer.validation import ValidationResult, Validator, save_translations
from trainer.zero.engine import Engine, PassResult


class Trainer:
    """One rank of a run. `trainer.build.build_trainer` puts it together."""

    def __init__(
        self,
        job: RankJob,
        progress: Progress,
        *,
        engine: Engine,
        ema: Ema | None,
        steps: Callable[[Cursor], Iterator[RankStep]],
        validator: Validator,
        saver: Saver,
        recorder: Recorder | None,
        profiler: StepProfiler,
        supervision: Supervision,
        placement: Placement,
        resources: ExitStack,
    ) -> None:
        """``resources`` closes what the parts hold: engine, record, a checkpoint being written."""
        self.recipe = job.recipe
        self.run = RunFolder(job.run)
        self.progress = progress
        self.engine = engine
        self._ema = ema
        self._open_stream = steps
        self._validator = validator
        self._saver = saver
        self._recorder = recorder
        self._profiler = profiler
        self._supervision = supervision
        self._placement = placement
        self._resources = resources
        self._dummy = dummy_batch(engine.module.vocabulary, placement.torch_device)
        self._checkpoint_stall_seconds = 0.0

    def train(self) -> Outcome:
        """Train until the end or a request to stop; the last thing done is a checkpoint."""
        if self.progress.validation_due and not self._validate():
            return "preempted"  # the checkpoint that it was resumed from says so still
        steps = self._open_stream(self.progress.cursor)
        while not self._is_over():
            with self._profiler.step(self.progress.step + 1):
                stop = self._train_step(steps).stop_requested
            if self._validation_is_due():
                self.progress.validation_due = stop or not self._validate()
                stop = self.progress.validation_due
            over = self._is_over() and not stop
            every = self.recipe.checkpoints.every_steps
            if stop and self._recorder:
                self._recorder.event("preempted")
            if over or stop or self.progress.step % every == 0:
                self._save(final=over or stop)
            if stop:
                return "preempted"
        self._supervision.progress("done", self.progress.step)
        return "finished"

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def _is_over(self) -> bool:
        return self.progress.is_over(self.recipe.trainer)

    def _validation_is_due(self) -> bool:
        config, step = self.recipe.trainer, self.progress.step
        return step == config.max_steps or step % config.validate_every_steps == 0

    def _train_step(self, steps: Iterator[RankStep]) -> StepReport:
        progress, started = self.progress, time.monotonic()
        step = progress.step + 1
        self._supervision.progress("step", step)
        data = next(steps)
        stall = time.monotonic() - started
        self._supervision.progress("step", step, str(data.cursor))
        report = self._sum_gradients(step, data, stall)
        rate = learning_rate(self.recipe.trainer.schedule, step, self.recipe.model.width)
        norm = self._apply(report, rate)
        progress.step = step
        progress.cursor = data.next_cursor
        progress.data_digest = fold(progress.data_digest, report.slot_digests)
        progress.validation_loss = progress.validation_bleu = None
        if norm is None:
            progress.skipped_steps += 1
            progress.skipped_in_a_row += 1
            line = skipped_line(progress, data, report, self._placement)
            self._record(line)
            if line["in_a_row"] >= self.recipe.trainer.stop_after_skipped_steps:
                self._saver.finish()  # the checkpoint that is being written is the last good one
                raise NonFiniteLossError(too_many_skipped(line))
            return report
        progress.skipped_in_a_row = 0
        progress.target_tokens_seen += data.target_tokens
        seconds = time.monotonic() - started
        self._record(
            {
                "step": step,
                "kind": "train",
                "time": time.time(),
                "loss": report.smoothed_sum / data.target_tokens,
                "nll": report.nll_sum / data.target_tokens,
                "learning_rate": rate,
                "grad_norm": norm,
                "target_tokens": data.target_tokens,
                "target_tokens_seen": progress.target_tokens_seen,
                "target_tokens_per_second": data.target_tokens / seconds,
                "padding_fraction": report.padding_fraction,
                "step_seconds": seconds,
                "data_stall_seconds": report.data_stall_seconds,
                "checkpoint_stall_seconds": self._checkpoint_stall_seconds,
                **data.cursor.to_json(),
                "world_size": self._placement.world_size,
                "data_digest": progress.data_digest,
            }
        )
        self._checkpoint_stall_seconds = 0.0
        return report

    def _sum_gradients(self, step: int, data: RankStep, stall: float) -> StepReport:
        """The step's passes, once more if a gradient does not fit the grid of its parameter."""
        report = self._accumulate(step, data, stall)
        while (outgrown := self.engine.refit(report.amax)) is not None:
            if outgrown and self._recorder:
                self._recorder.event("repeated", grids_widened=outgrown)
            report = self._accumulate(step, data, stall)
        return report

    def _accumulate(self, step: int, data: RankStep, stall: float) -> StepReport:
        """Forward and backward over the rank's slots, then the exchange with the other ranks."""
        batches: list[DeviceBatch] = []
        results: list[PassResult] = []
        passes = self.engine.slots_per_rank
        for index in range(passes):
            is_dummy = index >= len(data.slots)
            if not is_dummy:
                batch = to_device(
                    data.micro_batches[index],
                    self.engine.module.vocabulary,
                    self._placement.torch_device,
                )
                batches.append(batch)
                seed_torch(self.recipe.seed, "dropout", step, data.slots[index])
            result = self.engine.forward_backward(
                self._dummy if is_dummy else batch,
                target_tokens_global=data.target_tokens,
                is_accumulation_boundary=index == passes - 1,
                is_dummy=is_dummy,
            )
            if not is_dummy:
                results.append(result)
        return exchange(
            data.slots,
            batches,
            results,
            micro_batches_per_step=self.recipe.batching.micro_batches_per_step,
            data_stall_seconds=stall,
            stop_requested=self._supervision.stop_requested(),
            placement=self._placement,
        )

    def _apply(self, report: StepReport, rate: float) -> float | None:
        """The optimizer step; its gradient norm, or None if the step does not count."""
        if report.bad_slots:
            self.engine.discard_gradients()
            return None
        norm = self.engine.step(rate, report.amax)
        if not math.isfinite(norm):
            return None  # the sum overflowed, and the engine has applied nothing
        if self._ema:
            self._ema.update()
        return norm

    def _validate(self) -> bool:
        """Returns whether the validation was finished: it gives way to a request to stop."""
        progress = self.progress
        self._supervision.progress("validation", progress.step)
        started = time.monotonic()
        with (self._ema or self.engine).inference_model() as model:
            result = self._validator.run(model, self._supervision.stop_requested)
        if result is None:
            return False
        progress.validation_due = False
        progress.validation_loss, progress.validation_bleu = result.loss, result.bleu
        if stopping := self.recipe.trainer.early_stopping:
            progress.early_stopping = early_stopping.after_validation(
                progress.early_stopping, stopping, progress.step, result
            )
        self._record_validation(result, time.monotonic() - started)
        return True

    def _record_validation(self, result: ValidationResult, seconds: float) -> None:
        if self._recorder is None:
            return
        step = self.progress.step
        heldout, shown = self._validator.heldout, self.recipe.trainer.validation_samples
        try:
            save_translations(self.run.translations, f"validation-{step:08d}", result.translations)
        except OSError as error:
            self._supervision.notice(f"the translations of step {step} are not kept: {error}")
        self._record(
            {
                "step": step,
                "kind": "validation",
                "loss": result.loss,
                "perplexity": result.perplexity,
                "bleu": result.bleu,
                "seconds": seconds,
                "samples": [
                    {"source": s, "reference": r, "translation": t}
                    for s, r, t in zip(
                        heldout.sources[:shown],
                        heldout.targets[:shown],
                        result.translations[:shown],
                        strict=True,
                    )
                ],
            }
        )

    def _save(self, *, final: bool) -> None:
        self._supervision.progress("save", self.progress.step)
        self._checkpoint_stall_seconds += self._saver.save(self.progress, final=final)

    def _record(self, line: Line) -> None:
        if self._recorder:
            self._recorder.append(line)
