"""What a checkpoint holds: the fragments that this rank owns, and the header of them all."""

from collections.abc import Iterator

from data_pipeline.dataset.manifest import Manifest
from trainer.checkpoints.format import CheckpointHeader
from trainer.checkpoints.writer import CheckpointWriter, require_host_memory
from trainer.distributed import Placement
from trainer.rank_job import RankJob
from trainer.recipe import identity_of
from trainer.state import numerics
from trainer.state.ema import Ema
from trainer.state.progress import Progress
from trainer.supervision import Supervision
from trainer.tracking.recorder import Recorder
from trainer.zero import fragments
from trainer.zero.engine import Engine
from trainer.zero.fragments import Fragment


class Saver:
    """Writes checkpoints of one rank; making it allocates all the memory that it will need.

    Raises:
        CheckpointError: on all ranks, a host has too little memory for that.
    """

    def __init__(
        self,
        job: RankJob,
        *,
        engine: Engine,
        ema: Ema | None,
        manifest: Manifest,
        recorder: Recorder | None,
        supervision: Supervision,
        placement: Placement,
    ) -> None:
        self._recipe = job.recipe
        self._engine = engine
        self._ema = ema
        self._manifest = manifest
        self._numerics = numerics.fingerprint(job.recipe.engine, placement)
        require_host_memory(self._owned(), placement)
        self._writer = CheckpointWriter(
            self._owned,
            work=job.work,
            attempt=job.attempt,
            placement=placement,
            supervision=supervision,
            sync_record=recorder.sync if recorder else lambda: None,
        )

    def save(self, progress: Progress, *, final: bool) -> float:
        """Begin to write a checkpoint, and with ``final`` wait until it is written.

        Returns how long the training was stalled, in seconds.

        Raises:
            CheckpointError: the final one could not be written.
        """
        return self._writer.save(self._header(progress), final=final)

    def finish(self) -> None:
        """Returns when the rank's part of the last checkpoint is written, or could not be."""
        self._writer.finish()

    def close(self) -> None:
        """Wait for what is being written, and free its memory."""
        self._writer.close()

    def _owned(self) -> Iterator[Fragment]:
        yield from fragments.owned_fragments(self._engine)
        if self._ema:
            yield from self._ema.fragments()

    def _header(self, progress: Progress) -> CheckpointHeader:
        return CheckpointHeader(
            step=progress.step,
            optimizer_step=fragments.optimizer_step(self._engine),
            cursor=progress.cursor.to_json(),
            data_digest=progress.data_digest,
            dataset_identity=self._manifest.identity,
            recipe=self._recipe.model_dump(mode="json"),
            identity=identity_of(self._recipe),
            numerics=self._numerics,
            parameters={n: list(shape) for n, shape in self._engine.parameter_shapes.items()},
            parameter_groups=self._engine.parameter_group_settings(),
            validation_loss=progress.validation_loss,
            validation_bleu=progress.validation_bleu,
            validation_due=progress.validation_due,
            early_stopping=progress.early_stopping,
            target_tokens_seen=progress.target_tokens_seen,
            skipped_steps=progress.skipped_steps,
            skipped_in_a_row=progress.skipped_in_a_row,
            gradient_peaks=self._engine.grids.peaks if self._engine.grids else {},
            parent=progress.parent,
        )
