"""Jobs of a pool's ranks that verify a checkpoint together."""

from pathlib import Path

from run_store.checkpoints.checkpoint import Checkpoint
from run_store.errors import DamagedCheckpointError
from trainer.process.placement import Placement
from trainer.state.verification import SharedVerification


def verify(placement: Placement, path: Path) -> tuple[list[str], str]:
    """Return the names of the files that this rank has read, and its error."""
    checkpoint, read = Checkpoint(path), []
    verify_file = checkpoint.verify_file

    def noting(record):
        read.append(record.name)
        verify_file(record)

    checkpoint.verify_file = noting  # type: ignore[method-assign]
    verification = SharedVerification(checkpoint, placement)
    try:
        verification.require_intact()
    except DamagedCheckpointError as error:
        return read, str(error)
    finally:
        verification.close()
    return read, ""
