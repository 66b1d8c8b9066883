"""Initial state of a rank: from a checkpoint of its run, from a parent, or from random weights."""

import torch

from trainer.checkpoints.checkpoint import Checkpoint, SavedState
from trainer.checkpoints.reader import CheckpointReader, require_same_shapes
from trainer.job.rank_job import RankContext, RankJob
from trainer.recipe import TrainingRecipe, continuable_differences
from trainer.record.metrics_lines import RankHung, Resized, Resumed
from trainer.record.recorder import Recorder
from trainer.runs.model_folder import is_model_folder
from trainer.state import numerics
from trainer.state.ema import Ema
from trainer.state.model_folder import folder_weights
from trainer.state.progress import Progress
from trainer.state.training_state import TrainingState
from trainer.state.weight_transfer import plan_weight_transfer
from trainer.zero import fragments
from trainer.zero.engine import TrainingEngine
from trainer.zero.fragment import MASTER


def begin(engine: TrainingEngine, context: RankContext) -> TrainingState:
    """Return the state of step 0: zero moments, and the weights of the parent if there is one.

    Without a parent, the engine keeps its initial weights. If the parent provides only some of the
    weights, a notice lists the others.

    Raises:
        CheckpointError, RunMismatchError: the parent has neither the recipe's network nor its
            encoder.
        ModelError: the parent is a model in Hugging Face's layout that cannot be read.
    """
    warm_start = context.job.warm_start
    if warm_start is None:
        fragments.create_moments(engine, optimizer_step=0)
    elif is_model_folder(warm_start.path):
        labels = tuple(getattr(context.recipe.data, "labels", ()))
        found = folder_weights(warm_start.path, engine, labels)
        if found.fresh_text:
            context.notify(found.fresh_text)
        fragments.load_state(engine, found.read, optimizer_step=0, fresh=found.fresh)
    else:
        _load_transferred(engine, warm_start.checkpoint(), context)
    parent = warm_start.parent if warm_start else None
    progress = Progress(cursor=context.job.cursor, parent=parent)
    return TrainingState(progress, engine, _ema(engine, context.recipe))


def restore(engine: TrainingEngine, job: RankJob, checkpoint: SavedState) -> TrainingState:
    """Return the state in a checkpoint, which may come from other numbers of ranks or ZeRO stages.

    Raises:
        CheckpointError: its parameters are not those of the recipe's model.
    """
    header, recipe = checkpoint.header, job.recipe
    require_same_shapes(checkpoint, engine.parameter_shapes)
    reader = CheckpointReader(checkpoint)
    fragments.load_state(engine, reader.read_into, header.optimizer_step)
    if engine.grids:
        engine.grids.restore(header.gradient_peaks)
    ema = _ema(engine, recipe)
    if ema:
        ema.load(reader.read_into)
    return TrainingState(Progress.of_checkpoint(header, job.cursor), engine, ema)


def _load_transferred(engine: TrainingEngine, checkpoint: Checkpoint, context: RankContext) -> None:
    """Load all weights, or only the encoder's, from a checkpoint of another run."""
    found = plan_weight_transfer(checkpoint, context.recipe.model.network, engine.parameter_shapes)
    if found.skipped_text:
        context.notify(found.skipped_text)
    reader = CheckpointReader(checkpoint)

    def read(kind: str, parameter: str, start: int, target: torch.Tensor) -> None:
        if kind == MASTER:
            target.copy_(reader.read_weight(parameter, start, start + target.numel()))
        else:
            target.zero_()

    fragments.load_state(engine, read, optimizer_step=0, fresh=found.fresh)


def record_resumption(
    recorder: Recorder,
    context: RankContext,
    checkpoint: SavedState | None,
) -> None:
    """Record, as events, the step at which the run continues and changes since the checkpoint.

    If the ranks before hung, the finding about it comes first.
    """
    step, goodput = recorder.last_step, recorder.goodput
    if context.job.hang:
        recorder.append(RankHung.of(context.job.hang, step))
    if checkpoint is None:
        if goodput.restarts:
            recorder.append(
                Resumed(
                    step=step,
                    from_step=0,
                    restarts=goodput.restarts,
                    lost_steps=goodput.lost_steps,
                )
            )
        return
    header, job, placement = checkpoint.header, context.job, context.placement
    now = numerics.fingerprint(job.recipe.engine, placement)
    moved = job.cursor.to_json() != header.cursor
    recorder.append(
        Resumed(
            step=step,
            from_step=header.step,
            promise=numerics.promise(header.numerics, now),
            numerics_changed=numerics.differences(header.numerics, now),
            settings_changed=continuable_differences(
                TrainingRecipe.of_checkpoint(header.recipe, header.identity), job.recipe
            ),
            quarantined=sorted(job.manifest.left_out_since(header.dataset_identity)),
            window_left_at=header.cursor if moved else None,
            restarts=goodput.restarts,
            lost_steps=goodput.lost_steps,
        )
    )
    ranks = header.numerics.get("ranks")
    if ranks not in (None, placement.world_size):
        recorder.append(Resized(step=step, from_ranks=ranks, to_ranks=placement.world_size))


def _ema(engine: TrainingEngine, recipe: TrainingRecipe) -> Ema | None:
    decay = recipe.trainer.ema_decay
    return Ema(engine, decay) if decay else None
