"""Job of every rank of an attempt, and the context that its parts share."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from data_pipeline.batching.plan import Cursor
from data_pipeline.dataset.manifest_header import ManifestHeader
from run_store.checkpoints.checkpoint import Checkpoint, SavedState
from run_store.folder import RunFolder, StepRange
from run_store.record.hang import HangFinding
from trainer.process.placement import Placement
from trainer.recipe import TrainingRecipe
from trainer.start.warm_start import WarmStart

if TYPE_CHECKING:
    from run_store.checkpoints.format import CheckpointHeader
    from run_store.checkpoints.memory_file import MemoryFile, MemorySteps
    from run_store.checkpoints.state_file import FileRecord
    from run_store.record.metrics_lines import Line
    from run_store.record.vitals import Phase

Outcome = Literal["finished", "stopped"]


class Supervision(Protocol):
    """Interface through which a rank reports to its supervisor.

    Under Ray the supervisor is the driver, and the calls cross processes; `transloom train
    --inline` supervises itself. In both cases the supervisor commits a checkpoint when all ranks
    have written their parts.
    """

    def progress(self, phase: "Phase", step: int, where: str = "") -> None:
        """Report that the rank has entered a phase at a step.

        Args:
            phase: the phase that begins.
            step: the step.
            where: the cursor of the step's data, as text.
        """

    def line(self, line: "Line") -> None:
        """Report that rank 0 has written this line to the metrics file."""

    def notice(self, text: str) -> None:
        """Report an event of the rank that a user should see."""

    def log_detail(self, text: str) -> None:
        """Write a detail to the run's log without showing it."""

    def state_written(self, file: "FileRecord", header: "CheckpointHeader") -> None:
        """Report that the rank has written its part of a checkpoint; other parts may be missing."""

    def state_failed(self, step: int, reason: str) -> None:
        """Report that the rank could not write its part, so there is no checkpoint of this step."""

    def memory_written(self, file: "MemoryFile", header: "CheckpointHeader") -> None:
        """Report that the rank has written its share of a step to its node's memory."""

    def memory_failed(self, step: int) -> None:
        """Report that the rank has not written its share of a step to its node's memory."""

    def memory_steps(self) -> "MemorySteps":
        """Return the supervisor's latest report on the memory tier."""

    def stop_requested(self) -> bool:
        """Return whether the run must checkpoint at the next step boundary and exit."""


@dataclass(frozen=True)
class ReplayOptions:
    """Options of a replay, which trains recorded steps again to compare and inspect them.

    Attributes:
        folder: the folder for the reports of all ranks.
        looked_at: the steps to inspect; None inspects no step.
        checkpoints: the run's checkpoints with which the state is compared, by step.
        goes_on: whether to save the state after the last step. It is True if the replay will
            continue from that state with another version of the dataset.
        url: the URL of the run if it is in an object store; the ranks' run folder is then a copy.
    """

    folder: Path
    looked_at: StepRange | None = None
    checkpoints: dict[int, Path] = field(default_factory=dict)
    goes_on: bool = False
    url: str | None = None

    @property
    def numerics_file(self) -> Path:
        """File in which rank 0 writes the numerics fingerprint of the replay."""
        return self.folder / "numerics.json"

    def state_file(self, step: int, rank: int) -> Path:
        return self.folder / f"state-{step:08d}.rank-{rank:05d}.json"

    def inspection_file(self, step: int, rank: int) -> Path:
        return self.folder / f"look-{step:08d}.rank-{rank:05d}.json"


@dataclass(frozen=True)
class RankJob:
    """Run that the ranks train, and the state from which they start.

    Attributes:
        recipe: the resolved recipe.
        run: the run's folder.
        manifest: the manifest to train on, without its shards, so that no rank parses all shards.
        checkpoint: the complete checkpoint to resume from; None starts at step 0.
        cursor: the position in the data at which the ranks start. The checkpoint's position, or the
            start of the next window if the checkpoint's window has lost a shard since then.
        verify_checkpoint: whether the ranks verify the hashes of the checkpoint's files while they
            build the engine. False if the supervisor has already verified them.
        memory_checkpoint: the state in the nodes' memory to resume from instead, or None. Its step
            is newer than that of `checkpoint`.
        memory_name: the name of the run's folders in the nodes' memory; None without that tier.
        url: the run's location in an object store; None for a run in a folder. The paths of this
            job are then valid on the driver's node.
        states_url: the location to which the ranks upload their state files, or None.
        work: the owner's work folder, see `run_store.lease`.
        attempt: the supervisor's name for this start of the ranks.
        session_started: when the run's owner started, in seconds since the epoch.
        warm_start: the weights of step 0; None for random weights.
        profile: the steps to profile, or None.
        replay: the options of a replay, whose steps are only compared and inspected; None for a
            run.
        hang: the finding about the previous attempt, if its ranks hung; rank 0 records it.
        resize_reason: the reason why the previous attempt had a different number of ranks, or None
            if it is unknown.
    """

    recipe: TrainingRecipe
    run: Path
    manifest: ManifestHeader
    checkpoint: Path | None
    cursor: Cursor
    work: Path
    attempt: str
    session_started: float
    verify_checkpoint: bool = False
    memory_checkpoint: SavedState | None = None
    memory_name: str | None = None
    url: str | None = None
    states_url: str | None = None
    warm_start: WarmStart | None = None
    profile: StepRange | None = None
    replay: ReplayOptions | None = None
    hang: HangFinding | None = None
    resize_reason: str | None = None

    @property
    def saved_state(self) -> SavedState | None:
        """State to resume from; None to start at step 0."""
        if self.memory_checkpoint is not None:
            return self.memory_checkpoint
        return Checkpoint(self.checkpoint) if self.checkpoint else None


@dataclass(frozen=True)
class RankContext:
    """Job of a rank, its placement, and its supervision."""

    job: RankJob
    placement: Placement
    supervision: Supervision

    @property
    def recipe(self) -> TrainingRecipe:
        return self.job.recipe

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.job.run)

    def notify(self, text: str) -> None:
        """Send a notice that applies to all ranks; only rank 0 sends it, so users see it once."""
        if self.placement.rank == 0:
            self.supervision.notice(text)
