"""State files in the memory of nodes, and the steps that they cover."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_pipeline.storage.regular_files import open_regular
from run_store.checkpoints.state_file import CHUNK_BYTES
from run_store.errors import DamagedCheckpointError

SLOTS = 2  # number of memory files of each rank


@dataclass(frozen=True)
class MemoryFile:
    """State file that a rank has written to its node's memory, or a copy on another node.

    Attributes:
        path: the path of the file, in the run's folder in the node's memory.
        bytes: the size of the file.
        crc32: the checksum of the file, which detects an incomplete copy.
    """

    path: Path
    bytes: int
    crc32: int

    def verify(self) -> None:
        """Compare the file's size and checksum; call it on the file's node.

        Raises:
            DamagedCheckpointError: the file differs, or cannot be read.
        """
        checksum, size = 0, 0
        try:
            with open_regular(self.path) as file:
                while chunk := file.read(CHUNK_BYTES):
                    checksum = zlib.crc32(chunk, checksum)
                    size += len(chunk)
        except OSError as error:
            raise DamagedCheckpointError(f"{self.path} cannot be read: {error.strerror}") from error
        if (size, checksum) != (self.bytes, self.crc32):
            raise DamagedCheckpointError(
                f"{self.path} has {size} bytes and checksum {checksum:08x}, expected {self.bytes} "
                f"bytes and {self.crc32:08x}: it is damaged"
            )


class MemorySteps(NamedTuple):
    """Progress of the memory tier, as the supervisor reports it to the ranks.

    Attributes:
        held: the newest step whose files all nodes have confirmed; 0 if there is none.
        settled: the newest step that is confirmed or given up, like all steps before it; 0 if there
            is none.
    """

    held: int = 0
    settled: int = 0
