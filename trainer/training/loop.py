"""Training loop of one rank.

Input: a stream of this rank's micro-batches, and the state of the run to continue. Each step:
fetch, forward and backward over the rank's slots, one exchange with the other ranks, one optimizer
step, a line in the metrics file. At some steps: a validation and a checkpoint. Output: an
`Outcome`.

Decisions that change the control flow (on a non-finite loss, a spike, a stop request, or early
stopping) use only values that are equal on all ranks, such as the result of the exchange. So all
ranks decide alike. Every rank knows which slots are finite before it applies the gradients, and
with `trainer.spike_guard` also the gradient norm.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import NoReturn, Protocol

import torch

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from trainer.errors import NonFiniteLossError, SpikeError
from trainer.rank.rank_job import RankContext
from trainer.rank.supervision import Outcome
from trainer.record.metrics_lines import (
    CorruptionFound,
    Preempted,
    Repeated,
    Sample,
    TrainLine,
    ValidationLine,
)
from trainer.record.recorder_protocol import RecorderProtocol
from trainer.state import early_stopping
from trainer.state.digest import fold
from trainer.state.saving import SaverProtocol
from trainer.state.training_state import TrainingState
from trainer.tasks.task import TrainingTask
from trainer.training.check_plan import SlotCheck
from trainer.training.prober import NoProber, ProberProtocol
from trainer.training.schedule import learning_rate
from trainer.training.slot_checks import MAX_DISPUTES, SlotChecks
from trainer.training.slow_ranks import SlowRankDetector, time_fields
from trainer.training.spike_guard import Spike, find_spike, spike_notice, with_step
from trainer.training.step_exchange import (
    StepReport,
    exchange,
    skipped_line,
    throughput,
    too_many_skipped,
)
from trainer.training.step_passes import StepPasses
from trainer.training.validation import ValidatorProtocol


class StepObserver(Protocol):
    """Observer of a rank's steps, such as a profiler, which changes no bit of the computation."""

    def step(self, step: int) -> AbstractContextManager[None]:
        """Return a context manager that observes the step in its body, including data loading."""


class Trainer:
    """Training loop of one rank of a run; `trainer.build.run.build_trainer` creates it."""

    def __init__(
        self,
        context: RankContext,
        state: TrainingState,
        task: TrainingTask,
        *,
        steps: Callable[[Cursor], Iterator[RankStep]],
        validator: ValidatorProtocol,
        saver: SaverProtocol,
        recorder: RecorderProtocol,
        observer: StepObserver,
        resources: ExitStack,
        prober: ProberProtocol | None = None,
        peak_flops_per_second: float | None = None,
        checks: SlotChecks | None = None,
    ) -> None:
        """Store the parts of the rank.

        Args:
            context: the recipe, the placement and the supervision of the rank.
            state: the state to continue from, which training changes in place.
            task: the task, which creates the batches.
            steps: opens this rank's stream of data at a cursor.
            validator: scores the validation set.
            saver: writes checkpoints.
            recorder: records lines.
            observer: observes steps without changing them.
            resources: closes the engine and the metrics file at the end, and waits for a checkpoint
                in flight.
            prober: saves the network's outputs for probe sentences.
            peak_flops_per_second: the peak of this rank's device; None if it is unknown.
            checks: the comparisons of slots with other ranks; None for none.
        """
        self.recipe = context.recipe
        self.progress = state.progress
        self.engine = state.engine
        self._ema = state.ema
        self._placement = context.placement
        self._notify = context.notify
        self._run = context.job.run
        self._supervision = context.supervision
        self._open_stream = steps
        self._validator = validator
        self._saver = saver
        self._recorder = recorder
        self._observer = observer
        self._resources = resources
        self._prober = prober or NoProber()
        self._peak_flops_per_second = peak_flops_per_second
        self._checks = checks
        self._passes = StepPasses(
            state.engine,
            task,
            seed=self.recipe.seed,
            placement=self._placement,
            checks=checks,
        )
        self._checkpoint_stall_seconds = 0.0
        self._slow_ranks = SlowRankDetector(self._placement.node_names)

    def train(self) -> Outcome:
        """Train until the end or a stop request, and write a last checkpoint."""
        progress = self.progress
        if progress.validation_due:
            self._validate()
            if progress.validation_due:
                return "preempted"  # the checkpoint that the run resumed from has this state
        if progress.step == 0:
            self._probe()
        steps = self._open_stream(progress.cursor)
        while not self._is_over():
            with self._observer.step(progress.step + 1):
                report = self._train_step(steps)
            self._probe()
            stop = report.stop_requested
            if self._validation_is_due():
                progress.validation_due = True
                if not stop:
                    self._validate()
                    stop = progress.validation_due
            if stop:
                self._recorder.append(Preempted(step=self._recorder.last_step))
            final = stop or self._is_over()
            if not final and self._memory_checkpoint_is_due():
                self._checkpoint_stall_seconds += self._saver.save_to_memory()
            if final or progress.step % self.recipe.checkpoints.every_steps == 0:
                self._save(final=final)
            if stop:
                return "preempted"
        self._supervision.progress("done", progress.step)
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

    def _memory_checkpoint_is_due(self) -> bool:
        interval = self.recipe.checkpoints.memory_every_steps
        return bool(interval) and self.progress.step % interval == 0

    def _train_step(self, steps: Iterator[RankStep]) -> StepReport:
        progress, started = self.progress, time.monotonic()
        step = progress.step + 1
        self._supervision.progress("data", step)
        data = next(steps)
        stall = time.monotonic() - started
        self._supervision.progress("step", step, str(data.cursor))
        with self.engine.timer.step():
            report = self._sum_gradients(step, data, stall)
            rate = learning_rate(self.recipe.trainer.schedule, step, self.engine.width)
            applied = self._apply(report, rate, report.sums[0] / data.units)
        progress.step = step
        progress.cursor = data.next_cursor
        progress.data_digest = fold(progress.data_digest, report.slot_digests)
        progress.scores = {}
        if isinstance(applied, float):
            self._record_step(data, report, rate, applied, time.monotonic() - started)
        else:
            self._record_skipped(data, report, applied)
        self._compare_ranks(report)
        return report

    def _compare_ranks(self, report: StepReport) -> None:
        """Record ranks that have become slow or normal; only rank 0 does."""
        if self._placement.rank == 0 and report.rank_times:
            for event in self._slow_ranks.add(report.rank_times, self._recorder.last_step):
                self._recorder.append(event)

    def _record_step(
        self, data: RankStep, report: StepReport, rate: float, norm: float, seconds: float
    ) -> None:
        progress = self.progress
        progress.skipped_in_a_row = 0
        progress.target_tokens_seen += data.units
        sums = {
            name: total / data.units
            for name, total in zip(self.engine.sum_names, report.sums, strict=True)
        }
        loss = sums.pop(self.engine.sum_names[0])
        if guard := self.recipe.trainer.spike_guard:
            progress.recent_steps = with_step(progress.recent_steps, guard.window, loss, norm)
        self._recorder.append(
            TrainLine(
                step=progress.step,
                **data.cursor.to_json(),
                data_digest=progress.data_digest,
                time=time.time(),
                loss=loss,
                nll=sums.pop("nll", loss),
                other_sums=sums or None,
                learning_rate=rate,
                grad_norm=norm,
                target_tokens=data.units,
                target_tokens_seen=progress.target_tokens_seen,
                target_tokens_per_second=data.units / seconds,
                padding_fraction=report.padding_fraction,
                step_seconds=seconds,
                data_stall_seconds=report.data_stall_seconds,
                checkpoint_stall_seconds=self._checkpoint_stall_seconds,
                world_size=self._placement.world_size,
                **throughput(report, seconds, self._placement.world_size),
                **time_fields(report.rank_times),
                slow_ranks=self._slow_ranks.slow_ranks,
            )
        )
        self._checkpoint_stall_seconds = 0.0

    def _record_skipped(self, data: RankStep, report: StepReport, spike: Spike | None) -> None:
        """Record a step that was not applied, because of a spike or because it was not finite.

        Raises:
            NonFiniteLossError, SpikeError: too many steps in a row were not applied.
        """
        self.progress.skipped_steps += 1
        self.progress.skipped_in_a_row += 1
        self.progress.skipped_spikes += spike is not None
        line = skipped_line(self.progress, data, report, self._placement, spike)
        self._recorder.append(line)
        if spike:
            self._notify(spike_notice(line, self._run))
        if line.in_a_row >= self.recipe.trainer.stop_after_skipped_steps:
            self._saver.finish()  # the checkpoint in flight is the last good one
            error = SpikeError if spike else NonFiniteLossError
            raise error(too_many_skipped(line))

    def _sum_gradients(self, step: int, data: RankStep, stall: float) -> StepReport:
        """Run the step's passes, and repeat them while a gradient exceeds its parameter's grid."""
        while True:
            report = self._accumulate(step, data, stall)
            outgrown = self.engine.refit(report.amax)
            if outgrown is None:
                return report
            self._slow_ranks.skip_next_step()  # the repetition
            if outgrown:
                self._recorder.append(
                    Repeated(step=self._recorder.last_step, grids_widened=outgrown)
                )

    def _accumulate(self, step: int, data: RankStep, stall: float) -> StepReport:
        """Run forward and backward for the rank's slots, then exchange results with other ranks.

        Raises:
            SilentCorruptionError: ranks compute different bits for the same slot.
        """
        passed = self._passes.run(step, data)
        report = exchange(
            data.slots,
            passed.batches,
            passed.results,
            micro_batches_per_step=self.recipe.batching.micro_batches_per_step,
            data_stall_seconds=stall,
            stop_requested=self._supervision.stop_requested(),
            placement=self._placement,
            peak_flops_per_second=self._peak_flops_per_second,
            timer=self.engine.timer,
            check_words=passed.checks.words(passed.digests),
        )
        if self._checks:
            if failed := passed.checks.failed(report.check_words):
                self._report_corruption(step, data, failed[:MAX_DISPUTES], passed.digests)
            self._checks.passed(step, passed.checks)
        return report

    def _report_corruption(
        self, step: int, data: RankStep, failed: list[SlotCheck], digests: dict[int, torch.Tensor]
    ) -> NoReturn:
        """Find out which ranks compute wrong bits, record this, and raise the error on all ranks.

        Args:
            step: the step, which is not applied.
            data: the data of the step.
            failed: the failed checks of the step.
            digests: the digests that this rank has computed in the step, by slot.
        """
        assert self._checks
        self.engine.discard_gradients()
        repeated = self._passes.repeat(step, data, sorted({check.slot for check in failed}))
        error = self._checks.error(step, failed, digests, repeated)
        self._recorder.append(CorruptionFound.of(error.finding, self._recorder.last_step))
        raise error

    def _apply(self, report: StepReport, rate: float, loss: float) -> float | Spike | None:
        """Apply the optimizer step, unless the step is not finite or spikes.

        Returns:
            The gradient norm if the step is applied, the spike if it spikes, otherwise None.
        """
        guard = self.recipe.trainer.spike_guard
        norm = spike = None
        if guard and not report.bad_slots:
            norm = self.engine.gradient_norm(report.amax)
            spike = find_spike(guard, self.progress.recent_steps, loss, norm)
        if report.bad_slots or spike:
            self.engine.discard_gradients()
            return spike
        norm = self.engine.step(rate, report.amax, norm)
        if not math.isfinite(norm):
            return None  # the sum overflowed, and the engine has applied nothing
        if self._ema:
            self._ema.update()
        return norm

    def _validate(self) -> None:
        """Validate the model. A validation that a stop request interrupts remains due."""
        progress = self.progress
        self._supervision.progress("validation", progress.step)
        self._slow_ranks.skip_next_step()
        started = time.monotonic()
        with (self._ema or self.engine).inference_model() as model:
            result = self._validator.run(model, self._supervision.stop_requested)
        if result is None:
            return
        progress.validation_due = False
        progress.scores = result.scores
        if stopping := self.recipe.trainer.early_stopping:
            progress.early_stopping = early_stopping.after_validation(
                progress.early_stopping, stopping, progress.step, result.scores
            )
        self._recorder.record_texts(progress.step, result.texts)
        self._recorder.append(
            ValidationLine(
                step=progress.step,
                scores=result.scores,
                seconds=time.monotonic() - started,
                samples=[
                    Sample(source=shown.given, reference=shown.expected, translation=shown.made)
                    for shown in result.examples[: self.recipe.trainer.validation_samples]
                ],
            )
        )

    def _probe(self) -> None:
        """Save the network's outputs for the probe sentences, if this step has a time-lapse frame.

        The outputs are computed with the weights that a validation uses. Until they are saved, all
        ranks report the phase `validation`.
        """
        step = self.progress.step
        if self._prober.is_due(step):
            self._slow_ranks.skip_next_step()
            self._supervision.progress("validation", step)
            with (self._ema or self.engine).inference_model() as model:
                self._prober.take(model, step)

    def _save(self, *, final: bool) -> None:
        self._slow_ranks.skip_next_step()
        self._supervision.progress("save", self.progress.step)
        self._checkpoint_stall_seconds += self._saver.save(final=final)
