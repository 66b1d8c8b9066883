"""State file of one rank: fragments as safetensors, written without a second copy in memory.

::

    8 bytes      length of the header, little-endian
    header       JSON: dtype, shape, and byte range of each tensor
    data         fp32 elements of the tensors, little-endian, without gaps

The writer hashes the bytes while it writes them, and finally syncs the file to the disk.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple, Protocol

from pydantic import Field

from data_pipeline.storage.regular_files import open_regular
from foundation.file_model import MAX_COUNT, Count, FileModel, JsonLimits, parse_object
from run_store.errors import CheckpointError

if TYPE_CHECKING:
    import torch

# These limits are a thousand times what a model with 100 layers on 100 ranks needs.
HEADER_LIMITS = JsonLimits(bytes=16_000_000, values=1_000_000)
BYTES_PER_ELEMENT = 4  # all state is fp32
CHUNK_BYTES = 16_000_000
ALIGNMENT_BYTES = 8


LENGTH_BYTES = 8


class FileRecord(FileModel):
    """Entry of a file in a checkpoint's header: its name, expected size and hash."""

    name: Annotated[str, Field(pattern=r"^state-\d+-of-\d+\.safetensors$")]
    bytes: Count
    sha256: str


class StoredFragment(NamedTuple):
    """Fragment in a state file: elements `[start, stop)` of a flattened parameter.

    `kind` is the kind of state, such as the master weights or a moment. `key` is the fragment's
    name in the file, see `fragment_key`.
    """

    kind: str
    parameter: str
    start: int
    stop: int
    key: str


class StateFile(Protocol):
    """An open state file, on a disk or in a node's memory.

    Attributes:
        label: the path of the file, and the name of its node if the file is on another node.
    """

    label: str

    def fragments(self) -> list[StoredFragment]:
        """Return the fragments in the file.

        Raises:
            CheckpointError: the file cannot be read, or is damaged.
        """

    def read_into(self, key: str, start: int, target: "torch.Tensor") -> None:
        """Fill a flat fp32 tensor on the host from a tensor in the file, from element `start` on.

        Raises:
            CheckpointError: the file cannot be read.
        """


class LocalStateFile:
    """State file on this node.

    Raises:
        CheckpointError: the file cannot be opened, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        try:
            with open_regular(path) as file:
                self._size = os.fstat(file.fileno()).st_size
                self._fragments, self._positions = read_layout(file, self._size)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error

    def fragments(self) -> list[StoredFragment]:
        return self._fragments

    def read_into(self, key: str, start: int, target: "torch.Tensor") -> None:
        import torch  # imported late, because the supervisor reads headers without torch

        position = self._positions[key] + start * BYTES_PER_ELEMENT
        part = self._content[position : position + target.nbytes]
        target.view(torch.uint8).copy_(part)

    @cached_property
    def _content(self) -> "torch.Tensor":
        """Memory-mapped bytes of the file; torch's mapping keeps no file open, unlike Python's."""
        import torch

        try:
            return torch.from_file(
                str(self._path), shared=False, size=self._size, dtype=torch.uint8
            )
        except RuntimeError as error:
            raise CheckpointError(f"{self._path} cannot be read: {error}") from error


def fragment_key(kind: str, parameter: str, start: int) -> str:
    """Return a fragment's name in a state file, such as `master:encoder.layers.0.norm.weight:0`."""
    return f"{kind}:{parameter}:{start}"


def state_file_name(rank: int, world_size: int) -> str:
    return f"state-{rank:05d}-of-{world_size:05d}.safetensors"


def write_state_file(
    path: Path, sizes: Mapping[str, int], data: Iterable[memoryview]
) -> FileRecord:
    """Write flat fp32 tensors to a file, and sync it to the disk.

    Args:
        path: the file. Its folder must exist; if it was removed, another process has taken over the
            run.
        sizes: the number of elements of each tensor.
        data: the tensors' bytes in the same order, in chunks of any size.

    Returns:
        The name, size in bytes, and sha256 of the file.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    header = state_header(sizes)
    sha256 = hashlib.sha256()
    written = 0
    chunks: Iterator[bytes | memoryview] = chain([memoryview(header)], _chunks(data))
    with path.open("wb") as file:
        for chunk in chunks:
            sha256.update(chunk)  # hashing and writing both release the GIL
            file.write(chunk)
            written += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    assert written == len(header) + sum(sizes.values()) * BYTES_PER_ELEMENT
    return FileRecord(name=path.name, bytes=written, sha256=sha256.hexdigest())


def read_layout(file: BinaryIO, size: int) -> tuple[list[StoredFragment], dict[str, int]]:
    """Return the fragments in an open state file, and the position of their data by fragment key.

    Args:
        file: the file, at its beginning.
        size: the size of the file in bytes.

    Raises:
        ValueError: the file is not a sequence of flat fp32 tensors without gaps.
    """
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    data_bytes = size - LENGTH_BYTES - length
    if length > HEADER_LIMITS.bytes or data_bytes < 0:
        raise ValueError(
            f"its header has {length:,} bytes, expected at most {HEADER_LIMITS.bytes:,} and less "
            f"than the file's {size:,}"
        )
    tensors = parse_object(file.read(length), HEADER_LIMITS)
    fragments, positions = [], {}
    position = 0
    for key, tensor in tensors.items():
        fragment = _fragment(key, tensor, position)
        positions[key] = LENGTH_BYTES + length + position
        position += (fragment.stop - fragment.start) * BYTES_PER_ELEMENT
        fragments.append(fragment)
    if position != data_bytes:
        raise ValueError(
            f"its tensors have {position:,} bytes, but the file has {data_bytes:,} bytes of data"
        )
    return fragments, positions


def _fragment(key: str, tensor: object, position: int) -> StoredFragment:
    """Return the fragment in an entry of the header, whose data must begin at byte `position`."""
    kind, _, place = key.partition(":")
    parameter, _, start = place.rpartition(":")
    if not kind or not parameter or not start.isdecimal() or len(start) > len(str(MAX_COUNT)):
        raise ValueError(
            f"a tensor has the name {key[:200]!r}, expected a name KIND:PARAMETER:START"
        )
    shape = tensor.get("shape") if isinstance(tensor, dict) else None
    numel = shape[0] if isinstance(shape, list) and len(shape) == 1 else None
    if type(numel) is not int or not 0 <= numel <= MAX_COUNT:
        raise ValueError(f"{key[:200]} is {tensor!r:.200}, expected a flat tensor")
    expected = {
        "dtype": "F32",
        "shape": [numel],
        "data_offsets": [position, position + numel * BYTES_PER_ELEMENT],
    }
    if tensor != expected:
        raise ValueError(f"{key[:200]} is {tensor!r:.200}, expected {expected}")
    return StoredFragment(kind, parameter, int(start), int(start) + numel, key)


def state_header(sizes: Mapping[str, int]) -> bytes:
    """Return the first bytes of a state file, up to the tensors' data.

    Args:
        sizes: the number of elements of each tensor.
    """
    tensors, position = {}, 0
    for key, numel in sizes.items():
        end = position + numel * BYTES_PER_ELEMENT
        tensors[key] = {"dtype": "F32", "shape": [numel], "data_offsets": [position, end]}
        position = end
    text = json.dumps(tensors).encode()
    text += b" " * (-len(text) % ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def _chunks(data: Iterable[memoryview]) -> Iterator[memoryview]:
    for piece in data:
        for start in range(0, len(piece), CHUNK_BYTES):
            yield piece[start : start + CHUNK_BYTES]
