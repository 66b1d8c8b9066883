"""Construction of a rank of a replay: the parts of a run's rank, and a step inspector.

A replay has no validation, no checkpoints, no W&B and no observers of a run, because they do not
affect a step. It has the run's guards.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from torch import nn

from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from data_pipeline.dataset.manifest import open_dataset_store
from data_pipeline.storage.durable import write_atomically
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from trainer.assembly.callbacks import build_guards
from trainer.assembly.engine import build_engine
from trainer.job.rank_job import RankContext
from trainer.record.metrics_file import MetricsFile
from trainer.record.metrics_lines import Line
from trainer.record.recorder_protocol import NoRecorder
from trainer.replay.step_inspector import StepInspector
from trainer.state import numerics
from trainer.state.restore import begin, restore
from trainer.state.saving import NoSaver, Saver
from trainer.tasks.task import ValidationResult, training_task
from trainer.training.callbacks import Callbacks
from trainer.training.loop import Trainer


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

    See `build_rank` for the arguments.
    """
    job, placement = context.job, context.placement
    recipe, order = job.recipe, job.replay
    assert order is not None
    checkpoint = job.saved_state
    tokenizers = load_tokenizers(open_dataset_store(recipe.data), job.manifest)
    task = training_task(recipe, job.manifest, tokenizers)
    with ExitStack() as resources:
        engine = build_engine(recipe, task, placement)
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
