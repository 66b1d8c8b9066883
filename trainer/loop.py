"""The training loop of one rank.

In: a recipe, a run folder, a placement, a stream of this rank's micro-batches. Per step: fetch,
forward and backward over the rank's slots, one exchange with the other ranks, one optimizer
step, a line in the record; every so often a validation and a checkpoint. Out: an `Outcome`.

Whatever changes the flow (a loss that is not finite, a request to stop) is decided from the
exchange, hence equally on all ranks and before the gradients are applied.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.quarantine import cursor_after
from data_pipeline.feeding.plan import Cursor
from data_pipeline.feeding.stream import RankStep
from trainer import fragments, numerics
from trainer.assignment import Assignment
from trainer.batch import DeviceBatch, dummy_batch, to_device
from trainer.checkpoints.commit import partial_folder
from trainer.checkpoints.format import Checkpoint, CheckpointHeader
from trainer.checkpoints.reader import CheckpointReader
from trainer.checkpoints.state_file import write_state
from trainer.digest import START, fold
from trainer.distributed import Placement
from trainer.engine import Engine
from trainer.errors import CheckpointError, NonFiniteLossError
from trainer.metrics import Line
from trainer.randomness import seed_torch
from trainer.recipe import continuable_differences, identity_of
from trainer.recorder import Recorder
from trainer.run_folder import RunFolder
from trainer.schedule import learning_rate
from trainer.step_report import StepReport, exchange
from trainer.supervision import Outcome, Supervision
from trainer.validation import Validator, save_translations


@dataclass
class Progress:
    """How far the run is; with the engine's state, all that a checkpoint holds."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    data_digest: str = START
    target_tokens_seen: int = 0
    validation_loss: float | None = None  # of this very step


class Trainer:
    """One rank of a run. `trainer.build.build_trainer` puts it together."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        engine: Engine,
        steps: Callable[[Cursor], Iterator[RankStep]],
        validator: Validator,
        recorder: Recorder | None,
        supervision: Supervision,
        placement: Placement,
        manifest: Manifest,
    ) -> None:
        self.recipe = recipe = assignment.recipe
        self.run = RunFolder(assignment.run)
        self.engine = engine
        self.progress = Progress()
        self._open_stream = steps
        self._validator = validator
        self._recorder = recorder
        self._supervision = supervision
        self._placement = placement
        self._manifest = manifest
        self._assignment = assignment
        self._numerics = numerics.fingerprint(recipe.engine, placement)
        self._dummy = dummy_batch(engine.module.vocabulary, placement.torch_device)
        self._checkpoint_stall_seconds = 0.0

    def train(self) -> Outcome:
        """Train until ``max_steps`` or a request to stop; the last thing done is a checkpoint."""
        config = self.recipe.trainer
        steps = self._open_stream(self.progress.cursor)
        while self.progress.step < config.max_steps:
            started = time.monotonic()
            data = next(steps)
            report = self._train_step(data, started, time.monotonic() - started)
            last = self.progress.step == config.max_steps
            if last or self.progress.step % config.validate_every_steps == 0:
                self._validate()
            if (
                last
                or report.stop_requested
                or self.progress.step % self.recipe.checkpoints.every_steps == 0
            ):
                self._save()
            if report.stop_requested and not last:
                return "preempted"
        self._supervision.progress("done", self.progress.step)
        return "finished"

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._recorder:
            self._recorder.close()
        self.engine.destroy()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Put the run where the checkpoint left it, whatever the shape it was written under.

        Raises:
            CheckpointError: its parameters are not those of the recipe's model.
        """
        header = checkpoint.header
        shapes = {name: list(shape) for name, shape in self.engine.parameter_shapes.items()}
        for name in sorted(shapes.keys() | header.parameters.keys()):
            if shapes.get(name) != header.parameters.get(name):
                raise CheckpointError(
                    f"{checkpoint.path} has parameter {name} of shape {header.parameters.get(name)}"
                    f", the recipe's model has {shapes.get(name)}: it is another model's checkpoint"
                )
        fragments.load_state(self.engine, CheckpointReader(checkpoint).read, header.optimizer_step)
        saved = Cursor.from_json(header.cursor)
        cursor = cursor_after(
            self._manifest, self.recipe.data_settings, header.dataset_identity, saved
        )
        self.progress = Progress(
            step=header.step,
            cursor=cursor,
            data_digest=header.data_digest,
            target_tokens_seen=header.target_tokens_seen,
        )
        if self._recorder:
            self._recorder.event(
                "resumed",
                from_step=header.step,
                numerics_changed=numerics.differences(header.numerics, self._numerics),
                settings_changed=continuable_differences(header.recipe, self.recipe),
                quarantined=sorted(self._manifest.left_out_since(header.dataset_identity)),
                window_left_at=saved.to_json() if cursor != saved else None,
            )

    def _train_step(self, data: RankStep, started: float, stall: float) -> StepReport:
        step = self.progress.step + 1
        self._supervision.progress("step", step)
        self.progress.validation_loss = None
        report = self._accumulate(step, data, stall)
        _require_finite("loss", report.smoothed_sum, step, data.cursor)
        rate = learning_rate(self.recipe.trainer.schedule, step, self.recipe.model.width)
        norm = self.engine.step(rate)
        _require_finite("gradient norm", norm, step, data.cursor)
        self.progress.step = step
        self.progress.cursor = data.next_cursor
        self.progress.data_digest = fold(self.progress.data_digest, report.slot_digests)
        self.progress.target_tokens_seen += data.target_tokens
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
                "target_tokens_seen": self.progress.target_tokens_seen,
                "target_tokens_per_second": data.target_tokens / seconds,
                "padding_fraction": report.padding_fraction,
                "step_seconds": seconds,
                "data_stall_seconds": report.data_stall_seconds,
                "checkpoint_stall_seconds": self._checkpoint_stall_seconds,
                **data.cursor.to_json(),
                "world_size": self._placement.world_size,
                "data_digest": self.progress.data_digest,
            }
        )
        self._checkpoint_stall_seconds = 0.0
        return report

    def _accumulate(self, step: int, data: RankStep, stall: float) -> StepReport:
        """Forward and backward over the rank's slots, then the exchange with the other ranks."""
        batches: list[DeviceBatch] = []
        losses = []
        passes = self.engine.slots_per_rank
        for index in range(passes):
            real = index < len(data.slots)
            if real:
                batch = to_device(
                    data.micro_batches[index],
                    self.engine.module.vocabulary,
                    self._placement.torch_device,
                )
                batches.append(batch)
                seed_torch(self.recipe.seed, "dropout", step, data.slots[index])
            loss = self.engine.forward_backward(
                batch if real else self._dummy,
                target_tokens_global=data.target_tokens,
                last=index == passes - 1,
                real=real,
            )
            if real:
                losses.append(loss)
        return exchange(
            data.slots,
            batches,
            losses,
            micro_batches_per_step=self.recipe.batching.micro_batches_per_step,
            data_stall_seconds=stall,
            stop_requested=self._supervision.stop_requested(),
            placement=self._placement,
        )

    def _validate(self) -> None:
        step = self.progress.step
        self._supervision.progress("validation", step)
        started = time.monotonic()
        with self.engine.inference_model() as model:
            result = self._validator.run(model)
        self.progress.validation_loss = result.loss
        if self._recorder is None:
            return
        heldout, shown = self._validator.heldout, self.recipe.trainer.validation_samples
        save_translations(self.run.translations, f"validation-{step:08d}", result.translations)
        self._record(
            {
                "step": step,
                "kind": "validation",
                "loss": result.loss,
                "perplexity": result.perplexity,
                "bleu": result.bleu,
                "seconds": time.monotonic() - started,
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

    def _save(self) -> None:
        progress, placement = self.progress, self._placement
        self._supervision.progress("save", progress.step)
        started = time.monotonic()
        if self._recorder:
            self._recorder.sync()
        file = write_state(
            partial_folder(self._assignment.work, progress.step, self._assignment.attempt),
            placement.rank,
            placement.world_size,
            fragments.owned_fragments(self.engine),
        )
        header = CheckpointHeader(
            step=progress.step,
            optimizer_step=fragments.optimizer_step(self.engine),
            cursor=progress.cursor.to_json(),
            data_digest=progress.data_digest,
            dataset_identity=self._manifest.identity,
            recipe=self.recipe.model_dump(mode="json"),
            identity=identity_of(self.recipe),
            numerics=self._numerics,
            parameters={n: list(shape) for n, shape in self.engine.parameter_shapes.items()},
            parameter_groups=self.engine.parameter_group_settings(),
            validation_loss=progress.validation_loss,
            target_tokens_seen=progress.target_tokens_seen,
        )
        self._supervision.state_written(file, header)
        self._checkpoint_stall_seconds += time.monotonic() - started

    def _record(self, line: Line) -> None:
        if self._recorder:
            self._recorder.append(line)


def _require_finite(what: str, value: float, step: int, cursor: Cursor) -> None:
    """The value is the same on all ranks, so either all go on or all raise."""
    if not math.isfinite(value):
        raise NonFiniteLossError(
            f"The {what} of step {step} is {value} (data from {cursor}); the step does not count "
            "and the newest checkpoint stands. Lower the learning rate or set "
            "trainer.gradient_clipping, which makes another run"
        )
