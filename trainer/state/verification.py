"""Verification of a checkpoint by all ranks in parallel, while they build their engines."""

from concurrent.futures import ThreadPoolExecutor

import torch

from run_store.checkpoints.checkpoint import SavedState
from run_store.errors import CheckpointError, DamagedCheckpointError
from trainer.process.distributed import sum_over_ranks
from trainer.process.placement import Placement


class SharedVerification:
    """Thread that hashes this rank's share of the checkpoint's files."""

    def __init__(self, checkpoint: SavedState, placement: Placement) -> None:
        self._checkpoint = checkpoint
        self._placement = placement
        self._thread = ThreadPoolExecutor(1, "verification")
        self._hashed = self._thread.submit(self._hash_share)

    def require_intact(self) -> None:
        """Wait until all ranks have hashed their shares; a collective.

        Raises:
            DamagedCheckpointError: a rank found a damaged file; raised on all ranks.
        """
        problem = ""
        try:
            self._hashed.result()
        except CheckpointError as error:
            problem = str(error)
        damaged = sum_over_ranks(torch.tensor([float(bool(problem))]), self._placement)
        if damaged.item():
            raise DamagedCheckpointError(
                problem or f"Another rank found that {self._checkpoint.label} is damaged"
            )

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _hash_share(self) -> None:
        self._checkpoint.verify_share(self._placement.rank, self._placement.world_size)
