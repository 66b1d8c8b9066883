"""Initial state of a rank: from a checkpoint of its run, from a parent, or from random weights."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from foundation.wording import counted, join_items
from run_store.checkpoints.checkpoint import Checkpoint, SavedState
from run_store.checkpoints.fragment import MASTER
from run_store.checkpoints.reader import CheckpointReader, require_same_shapes
from run_store.errors import CheckpointError
from run_store.record.metrics_lines import RankHung, Resized, Resumed
from trainer.job.rank_job import RankContext, RankJob
from trainer.recipe import TrainingRecipe, continuable_differences
from trainer.start.model_folder import is_model_folder
from trainer.state import numerics
from trainer.state.ema import Ema
from trainer.state.folder_weights import folder_weights
from trainer.state.progress import Progress
from trainer.tracking.recorder import Recorder
from trainer.zero import fragments
from trainer.zero.engine import TrainingEngine

ENCODER = "encoder."  # prefix of the names of an encoder's parameters


@dataclass(frozen=True)
class TrainingState:
    """Progress, engine with weights and moments, and the moving average if the run keeps one."""

    progress: Progress
    engine: TrainingEngine
    ema: Ema | None

    def inference_model(self) -> AbstractContextManager[nn.Module]:
        """Return a context with the model for validation: the moving average, or the weights.

        A collective, see `TrainingEngine.inference_model`.
        """
        return (self.ema or self.engine).inference_model()


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
        CheckpointError: the checkpoint's parameters are not those of the recipe's model.
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
    """Record events: the step at which the run continues, and changes since the checkpoint.

    If the ranks of the previous attempt hung, this finding is recorded first.
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
    promise = numerics.promise(header.numerics, now)
    moved = job.cursor.to_json() != header.cursor
    recorder.append(
        Resumed(
            step=step,
            from_step=header.step,
            promise=promise,
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
        recorder.append(
            Resized(
                step=step,
                from_ranks=ranks,
                to_ranks=placement.world_size,
                reason=job.resize_reason,
                promise=promise,
            )
        )


def _ema(engine: TrainingEngine, recipe: TrainingRecipe) -> Ema | None:
    decay = recipe.trainer.ema_decay
    return Ema(engine, decay) if decay else None


@dataclass(frozen=True)
class WeightTransfer:
    """Parameters that a network copies from a checkpoint.

    Attributes:
        taken: the names of the parameters that are copied.
        fresh: the names of the network's parameters that keep their initial values.
        left: the names of the checkpoint's parameters that are not copied.
        weights: the number of elements of the copied parameters; 0 if the networks are of the same
            kind.
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    weights: int = 0

    @property
    def skipped_text(self) -> str | None:
        """Description of the parameters that are not copied, or None if all are copied."""
        if not self.fresh and not self.left:
            return None
        return (
            f"the encoder is taken from the other run: {counted(len(self.taken), 'parameter')} "
            f"with {counted(self.weights, 'weight')}. "
            f"Newly initialized: {join_items(self.fresh)}; not taken: {join_items(self.left)}"
        )


def plan_weight_transfer(
    checkpoint: Checkpoint, network: str, shapes: Mapping[str, Sequence[int]]
) -> WeightTransfer:
    """Return the parameters that a network copies from a checkpoint.

        same network      all parameters, which must be those of the recipe's model
        another network   the complete encoder, `encoder.*`; the rest keeps its initial values

    So a network with a different head can start from the encoder of a masked model. An encoder that
    matches only partly is refused, because the copied weights would have a different meaning in it.

    Args:
        checkpoint: the checkpoint of the other run.
        network: the name of the network's kind, `model.network` of the recipe.
        shapes: the shapes of the network's parameters, by name.

    Raises:
        CheckpointError: the checkpoint's network is of the same kind and has other parameters, or
            it is of another kind and does not have the same encoder.
    """
    other = _network_of(checkpoint)
    if other in (None, network):
        require_same_shapes(checkpoint, shapes)
        return WeightTransfer(tuple(shapes))
    theirs = checkpoint.header.parameters
    taken = tuple(name for name in shapes if name.startswith(ENCODER))
    if not taken or not any(name.startswith(ENCODER) for name in theirs):
        raise CheckpointError(
            f"trainer.init_from: model.network is {other} in {checkpoint.path} and {network} in "
            "the recipe. Weights can be copied to another kind of network only if both networks "
            f"have an encoder. Name a run with model.network {network}"
        )
    require_same_shapes(checkpoint, shapes, within=ENCODER)
    return WeightTransfer(
        taken,
        fresh=tuple(name for name in shapes if name not in taken),
        left=tuple(name for name in theirs if name not in taken),
        weights=sum(prod(shapes[name]) for name in taken),
    )


def _network_of(checkpoint: Checkpoint) -> str | None:
    """Return the kind of network in a checkpoint's recipe, or None if the recipe has none."""
    model = checkpoint.header.recipe.get("model")
    network = model.get("network") if isinstance(model, dict) else None
    return network if isinstance(network, str) else None
