"""The file that one rank writes: fragments as safetensors, without another copy in memory.

::

    8 bytes      length of the header, little-endian
    header       JSON: for each tensor its dtype, shape, and where its bytes begin and end
    data         the tensors' fp32 elements, little-endian, without gaps

The bytes are hashed as they are written, and are on the disk when the function returns.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from trainer.checkpoints.format import FileRecord

BYTES_PER_ELEMENT = 4  # all state is fp32
CHUNK_BYTES = 16_000_000
ALIGNMENT_BYTES = 8


def fragment_key(kind: str, parameter: str, start: int) -> str:
    """The name of a fragment in a state file, e.g. `master:encoder.layers.0.norm.weight:0`."""
    return f"{kind}:{parameter}:{start}"


def state_file_name(rank: int, world_size: int) -> str:
    return f"state-{rank:05d}-of-{world_size:05d}.safetensors"


def write_state_file(
    path: Path, sizes: Mapping[str, int], data: Iterable[memoryview]
) -> FileRecord:
    """Write flat fp32 tensors to a file, through to the disk.

    Args:
        path: the file. Its folder must exist: a missing one tells a rank that it is too late.
        sizes: the number of elements of each tensor.
        data: the tensors' bytes in the same order, cut anywhere.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    header = _header(sizes)
    sha256 = hashlib.sha256()
    written = 0
    chunks: Iterator[bytes | memoryview] = chain([memoryview(header)], _chunks(data))
    with path.open("wb") as file:
        for chunk in chunks:
            sha256.update(chunk)  # lets other threads run, as write does
            file.write(chunk)
            written += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    assert written == len(header) + sum(sizes.values()) * BYTES_PER_ELEMENT
    return FileRecord(name=path.name, bytes=written, sha256=sha256.hexdigest())


def _header(sizes: Mapping[str, int]) -> bytes:
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
