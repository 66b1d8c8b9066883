"""Training loop of one rank.

Input: a stream of this rank's micro-batches, and the state of the run to continue. Each step:
fetch, forward and backward over the rank's slots, one exchange with the other ranks, one optimizer
step, a line in the metrics file. At some steps: a validation and a checkpoint. Output: an
`Outcome`.

Decisions that change the control flow (on a non-finite loss, a refused step, a stop request, or
early stopping) use only values that are equal on all ranks, such as the result of the exchange. So
all ranks decide alike. Every rank knows which slots are finite before it applies the gradients.

All optional behaviour is in callbacks: observers around each step, and guards that may refuse to
apply a step.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import torch

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from run_store.record.corruption import MAX_PARAMETERS, ReductionError, ReductionFinding
from run_store.record.metrics_lines import (
    CorruptionFound,
    Preempted,
    Repeated,
    Sample,
    TrainLine,
    ValidationLine,
    WrongReduction,
)
from trainer.job.rank_job import Outcome, RankContext
from trainer.registries.callbacks import ObservedStep, Skip, StepView, Stop
from trainer.state import early_stopping
from trainer.state.digest import fold
from trainer.state.restore import TrainingState
from trainer.state.saving import SaverProtocol
from trainer.tasks.task import TrainingTask
from trainer.tracking.recorder_protocol import RecorderProtocol
from trainer.training.callbacks import Callbacks
from trainer.training.check_plan import SlotCheck
from trainer.training.schedule import learning_rate
from trainer.training.slot_checks import MAX_DISPUTES, SlotChecks
from trainer.training.step_exchange import (
    StepReport,
    ending_error,
    exchange,
    refusal_notice,
    skipped_line,
    throughput,
)
from trainer.training.step_passes import StepPasses
from trainer.training.validation import ValidatorProtocol


class Trainer:
    """Training loop of one rank of a run; `trainer.assembly.run.build_trainer` creates it."""

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
        callbacks: Callbacks,
        resources: ExitStack,
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
            callbacks: observes steps, and decides which are applied.
            resources: closes the engine and the metrics file at the end, and waits for a checkpoint
                in flight.
            peak_flops_per_second: the peak of this rank's device; None if it is unknown.
            checks: the comparisons of slots with other ranks; None for none.
        """
        self.recipe = context.recipe
        self.progress = state.progress
        self.engine = state.engine
        self._state = state
        self._placement = context.placement
        self._notify = context.notify
        self._run = context.job.run
        self._supervision = context.supervision
        self._open_stream = steps
        self._validator = validator
        self._saver = saver
        self._recorder = recorder
        self._callbacks = callbacks
        self._resources = resources
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

    def train(self) -> Outcome:
        """Train until the end or a stop request, and write a last checkpoint."""
        progress = self.progress
        if progress.validation_due:
            self._validate()
            if progress.validation_due:
                return "stopped"  # the checkpoint that was resumed has this state
        steps = self._open_stream(progress.cursor)
        while not self._is_over():
            with self._callbacks.around(progress.step + 1):
                report = self._train_step(steps)
            stop = report.stop_requested
            if self._validation_is_due():
                progress.validation_due = True
                if not stop:
                    self._validate()
                    stop = progress.validation_due
            if stop:
                self._recorder.append(Preempted(step=self._recorder.last_step))
            final = stop or self._is_over()
            self._save_if_due(final)
            if stop:
                return "stopped"
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
            view = report.view(step, data, self.engine.sum_names, rate)
            norm, decision = self._apply(report, view)
        progress.step = step
        progress.cursor = data.next_cursor
        progress.data_digest = fold(progress.data_digest, report.slot_digests)
        progress.scores = {}
        observed = ObservedStep(
            **vars(view),
            gradient_norm=norm,
            seconds=time.monotonic() - started,
            rank_times=report.rank_times,
            is_interrupted=report.is_interrupted,
        )
        fields = self._callbacks.after_step(observed)
        if norm is None:
            self._record_skipped(data, report, decision, fields)
        else:
            self._callbacks.applied(view, norm)
            self._record_step(data, report, observed, norm, fields)
        return report

    def _record_step(
        self,
        data: RankStep,
        report: StepReport,
        view: ObservedStep,
        norm: float,
        fields: dict[str, Any],
    ) -> None:
        progress = self.progress
        progress.skipped_in_a_row = 0
        progress.target_tokens_seen += data.units
        sums = {**view.sums}
        loss = sums.pop(self.engine.sum_names[0])
        self._recorder.append(
            TrainLine(
                step=progress.step,
                **data.cursor.to_json(),
                data_digest=progress.data_digest,
                time=time.time(),
                loss=loss,
                nll=sums.pop("nll", loss),
                other_sums=sums or None,
                learning_rate=view.learning_rate,
                grad_norm=norm,
                target_tokens=data.units,
                target_tokens_seen=progress.target_tokens_seen,
                target_tokens_per_second=data.units / view.seconds,
                padding_fraction=report.padding_fraction,
                step_seconds=view.seconds,
                data_stall_seconds=report.data_stall_seconds,
                checkpoint_stall_seconds=self._checkpoint_stall_seconds,
                world_size=self._placement.world_size,
                **throughput(report, view.seconds, self._placement.world_size),
                **fields,
            )
        )
        self._checkpoint_stall_seconds = 0.0

    def _record_skipped(
        self, data: RankStep, report: StepReport, decision: Skip | None, fields: dict[str, Any]
    ) -> None:
        """Record a step that was not applied, because a guard refused it or it was not finite.

        Raises:
            NonFiniteLossError, GuardError: too many steps in a row were not applied, or a guard
                stops the run.
        """
        self.progress.skipped_steps += 1
        self.progress.skipped_in_a_row += 1
        self.progress.skipped_spikes += decision is not None
        line = skipped_line(self.progress, data, report, self._placement, decision, fields)
        self._recorder.append(line)
        if decision:
            self._notify(refusal_notice(line, self._run))
        limit = self.recipe.trainer.stop_after_skipped_steps
        if line.in_a_row >= limit or isinstance(decision, Stop):
            self._saver.finish()  # keep the last good checkpoint, which may be in flight
            raise ending_error(line, decision)

    def _sum_gradients(self, step: int, data: RankStep, stall: float) -> StepReport:
        """Run the step's passes, and repeat them until their sums may be applied.

        They are repeated while a gradient exceeds its parameter's grid, and once after wrong sums.

        Raises:
            SilentCorruptionError: ranks compute different bits for the same slot.
            ReductionError: sums of gradients are wrong again after a repetition.
        """
        was_wrong = False
        while True:
            report = self._accumulate(step, data, stall)
            outgrown = self.engine.refit(report.amax)
            if outgrown:
                self._recorder.append(
                    Repeated(step=self._recorder.last_step, grids_widened=outgrown)
                )
            elif outgrown is None:
                wrong = [] if report.bad_slots else self.engine.wrong_reductions()
                if not wrong:
                    return report
                self._report_wrong_reductions(step, wrong, was_wrong)
                was_wrong = True
            self.engine.timer.interrupt()  # its time includes a repetition

    def _report_wrong_reductions(self, step: int, wrong: list[str], was_wrong: bool) -> None:
        """Record wrong sums of gradients; raise an error if the step's sums were wrong before.

        Args:
            step: the step, whose gradients were discarded.
            wrong: the parameters whose sums are wrong.
            was_wrong: whether the step's passes are a repetition after wrong sums.
        """
        finding = ReductionFinding(
            checked_step=step,
            parameters=tuple(wrong[:MAX_PARAMETERS]),
            parameter_count=len(wrong),
            is_repeated=was_wrong,
        )
        self._recorder.append(WrongReduction.of(finding, self._recorder.last_step))
        if was_wrong:
            raise ReductionError(finding)

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

    def _apply(self, report: StepReport, view: StepView) -> tuple[float | None, Skip | None]:
        """Apply the optimizer step, unless it is not finite or a guard refuses it.

        Returns:
            The gradient norm, None if the step was not applied; and the decision of a guard that
            refused it, otherwise None.
        """
        known: list[float] = []

        def gradient_norm() -> float:
            if not known:
                known.append(self.engine.gradient_norm(report.amax))
            return known[0]

        decision = None if report.bad_slots else self._callbacks.decide(view, gradient_norm)
        if report.bad_slots or decision:
            self.engine.discard_gradients()
            return None, decision
        norm = self.engine.step(view.learning_rate, report.amax, known[0] if known else None)
        if not math.isfinite(norm):
            return None, None  # the sum overflowed, and the engine has applied nothing
        if self._state.ema:
            self._state.ema.update()
        return norm, None

    def _validate(self) -> None:
        """Validate the model. A validation that a stop request interrupts remains due."""
        progress = self.progress
        self._supervision.progress("validation", progress.step)
        self.engine.timer.interrupt()
        started = time.monotonic()
        with self._state.inference_model() as model:
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

    def _save_if_due(self, final: bool) -> None:
        """Save the state to the nodes' memory, and to the disk, if this step has a checkpoint."""
        checkpoints, step = self.recipe.checkpoints, self.progress.step
        interval = checkpoints.memory_every_steps
        to_memory = not final and interval and step % interval == 0
        to_disk = final or step % checkpoints.every_steps == 0
        if to_memory or to_disk:
            self.progress.guard_states = self._callbacks.guard_states()
        if to_memory:
            self._checkpoint_stall_seconds += self._saver.save_to_memory()
        if to_disk:
            self.engine.timer.interrupt()
            self._supervision.progress("save", step)
            self._checkpoint_stall_seconds += self._saver.save(final=final)
