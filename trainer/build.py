"""Everything a rank is made of, built in one place: dataset → model → engine → data → trainer."""

from collections.abc import Callable, Iterator

from data_pipeline.dataset.heldout import load_heldout
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.feeding.plan import Cursor, slots_of_rank
from data_pipeline.feeding.stream import RankStep
from data_pipeline.pieces.tokenizer import load_tokenizers
from trainer.assignment import Assignment
from trainer.checkpoints.format import Checkpoint
from trainer.distributed import Placement
from trainer.engine import Engine
from trainer.loop import Trainer
from trainer.network import build_model
from trainer.recorder import Recorder
from trainer.run_folder import RunFolder
from trainer.supervision import Supervision
from trainer.validation import Validator


def build_trainer(
    assignment: Assignment,
    *,
    placement: Placement,
    steps: Callable[[Cursor], Iterator[RankStep]],
    supervision: Supervision,
) -> Trainer:
    """One rank of a run, at step 0 or where a checkpoint left it.

    The process group must exist; ``steps`` opens this rank's stream of data at a cursor.
    """
    recipe, run = assignment.recipe, RunFolder(assignment.run)
    checkpoint = Checkpoint(assignment.checkpoint) if assignment.checkpoint else None
    store, manifest = open_dataset(recipe.data, assignment.dataset_identity)
    tokenizers = load_tokenizers(store, manifest)
    engine = Engine(
        build_model(recipe, tokenizers),
        engine=recipe.engine,
        optimizer=recipe.trainer.optimizer,
        gradient_clipping=recipe.trainer.gradient_clipping,
        label_smoothing=recipe.trainer.label_smoothing,
        slots_per_rank=len(
            slots_of_rank(0, placement.world_size, recipe.batching.micro_batches_per_step)
        ),
        placement=placement,
    )
    validator = Validator(
        load_heldout(store, manifest, "validation"),
        tokenizers,
        max_tokens_per_micro_batch=recipe.batching.max_tokens_per_micro_batch,
        decoding=recipe.decoding,
        placement=placement,
    )
    recorder = Recorder(recipe, run, checkpoint, supervision) if placement.rank == 0 else None
    trainer = Trainer(
        assignment,
        engine=engine,
        steps=steps,
        validator=validator,
        recorder=recorder,
        supervision=supervision,
        placement=placement,
        manifest=manifest,
    )
    if checkpoint:
        trainer.resume(checkpoint)
    return trainer
