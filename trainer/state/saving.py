"""Saving of a checkpoint: this rank's fragments, and the header that all ranks share."""

from collections.abc import Callable, Iterator
from typing import Protocol

from run_store.checkpoints.format import CheckpointHeader, guard_fields
from run_store.checkpoints.fragment import Fragment
from run_store.checkpoints.memory_file import SLOTS
from run_store.checkpoints.state_upload import StateUploader
from trainer.job.rank_job import RankContext
from trainer.recipe import identity_of
from trainer.state import numerics
from trainer.state.checkpoint_writer import CheckpointWriter, require_host_memory
from trainer.state.memory_writer import MemoryWriter, memory_tier_problem
from trainer.state.restore import TrainingState
from trainer.zero import fragments


class SaverProtocol(Protocol):
    """Interface of a saver, as the training loop uses it."""

    def save(self, *, final: bool) -> float: ...

    def save_to_memory(self) -> float: ...

    def finish(self) -> None: ...


class NoSaver:
    """Saver that saves nothing, for steps that are only measured or compared."""

    def save(self, *, final: bool) -> float:
        return 0.0

    def save_to_memory(self) -> float:
        return 0.0

    def finish(self) -> None:
        """Return immediately, because nothing is being written."""


class Saver:
    """Writer of one rank's part of each checkpoint; the constructor allocates all its memory.

    Raises:
        CheckpointError: a host has too little memory; raised on all ranks.
    """

    def __init__(
        self,
        context: RankContext,
        state: TrainingState,
        sync_record: Callable[[], None],
    ) -> None:
        """Check the host's memory and allocate the host copy; a collective.

        Args:
            context: the recipe, the placement and the job of this rank.
            state: the state to save.
            sync_record: syncs the metrics file to the disk, because it must contain all steps up to
                a checkpoint.
        """
        self._job = context.job
        self._state = state
        self._recipe_values = context.recipe.model_dump(mode="json")
        self._identity = identity_of(context.recipe)
        self._numerics = numerics.fingerprint(context.recipe.engine, context.placement)
        require_host_memory(self._owned(), context.placement)
        self._writer = CheckpointWriter(
            self._owned,
            work=context.job.work,
            attempt=context.job.attempt,
            placement=context.placement,
            supervision=context.supervision,
            sync_record=sync_record,
            uploader=(
                StateUploader(context.job.states_url, context.supervision)
                if context.job.states_url
                else None
            ),
        )
        self._memory = self._memory_writer(context, sync_record)

    def save(self, *, final: bool) -> float:
        """Start writing a checkpoint; if `final`, wait until it is written.

        Returns:
            The time for which training was stalled, in seconds.

        Raises:
            CheckpointError: the final checkpoint could not be written.
        """
        return self._writer.save(self._header(), final=final)

    def save_to_memory(self) -> float:
        """Copy the state to the node's memory, if the run has memory checkpoints.

        Returns:
            The time for which training was stalled, in seconds.
        """
        return self._memory.save(self._header()) if self._memory else 0.0

    def finish(self) -> None:
        """Wait until the rank's part of the last checkpoint is written or has failed."""
        self._writer.finish()

    def close(self) -> None:
        """Wait for a write in flight, and free the writer's memory."""
        try:
            self._writer.close()
        finally:
            if self._memory:
                self._memory.close()

    def _memory_writer(
        self, context: RankContext, sync_record: Callable[[], None]
    ) -> MemoryWriter | None:
        """Return the writer of memory checkpoints, or None if the run cannot have any."""
        folder = context.placement.memory_folder
        if not context.recipe.checkpoints.memory_every_steps or folder is None:
            return None
        if problem := memory_tier_problem(self._owned(), context.placement):
            context.notify(f"memory checkpoints are off: {problem}")
            return None
        return MemoryWriter(
            self._owned,
            folder=folder,
            placement=context.placement,
            supervision=context.supervision,
            sync_record=sync_record,
            slots_at_start=1 if context.job.memory_checkpoint else SLOTS,
        )

    def _owned(self) -> Iterator[Fragment]:
        yield from fragments.owned_fragments(self._state.engine)
        if self._state.ema:
            yield from self._state.ema.fragments()

    def _header(self) -> CheckpointHeader:
        progress, engine = self._state.progress, self._state.engine
        return CheckpointHeader(
            step=progress.step,
            optimizer_step=fragments.optimizer_step(engine),
            cursor=progress.cursor.to_json(),
            data_digest=progress.data_digest,
            dataset_identity=self._job.manifest.identity,
            recipe=self._recipe_values,
            identity=self._identity,
            numerics=self._numerics,
            parameters={n: list(shape) for n, shape in engine.parameter_shapes.items()},
            parameter_groups=engine.parameter_group_settings(),
            scores=progress.scores,
            validation_due=progress.validation_due,
            early_stopping=progress.early_stopping,
            target_tokens_seen=progress.target_tokens_seen,
            skipped_steps=progress.skipped_steps,
            skipped_in_a_row=progress.skipped_in_a_row,
            skipped_spikes=progress.skipped_spikes,
            **guard_fields(progress.guard_states),
            gradient_peaks=engine.grids.peaks if engine.grids else {},
            parent=progress.parent,
            frozen=engine.frozen.names,
        )
