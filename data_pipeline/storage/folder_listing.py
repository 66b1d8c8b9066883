"""Names of the folders directly below a URL in an object store.

A client of an object store reads a whole response of a listing into memory, and the server decides
how long the response is. A child process with limited memory therefore requests the listing, and
this process reads a limited number of names from the child for a limited time.
"""

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

from data_pipeline.storage.object_errors import (
    ObjectAccessError,
    ObjectMissingError,
    ObjectStoreError,
)
from data_pipeline.storage.object_store import ObjectStore

MAX_FOLDERS = 100_000
MAX_SECONDS = 60.0
CHILD_MEMORY_BYTES = 256 * 1024**2
_MAX_LINE_BYTES = 10_000
_ERRORS = {kind.__name__: kind for kind in (ObjectAccessError, ObjectMissingError)}
COMMAND = (
    sys.executable,
    "-P",
    "-c",
    "from data_pipeline.storage.folder_listing import main; main()",
)
# By default, malloc would reserve address space for each thread.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "TOKIO_WORKER_THREADS": "1"}


def list_folders(url: str) -> list[str]:
    """Return the names of the folders directly below a URL, at most `MAX_FOLDERS`.

    Raises:
        ObjectStoreError: the object store does not answer, or its list is too long or takes longer
            than `MAX_SECONDS`.
    """
    child = subprocess.Popen(
        [*COMMAND, url, str(CHILD_MEMORY_BYTES)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # Ctrl-C reaches only this process, which kills the child
    )
    timer = threading.Timer(MAX_SECONDS, child.kill)
    timer.start()
    try:
        names = list(_names(child))
        code = child.wait()
    finally:
        timer.cancel()
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    if code or len(names) > MAX_FOLDERS:
        raise ObjectStoreError(
            f"{url}: its list of objects needs more than {MAX_FOLDERS:,} names, "
            f"{CHILD_MEMORY_BYTES // 1024**2} MiB of memory, or {MAX_SECONDS:.0f} s. Name the URL "
            "of one run, or a prefix with fewer"
        )
    return names


def _names(child: "subprocess.Popen[bytes]") -> Iterator[str]:
    assert child.stdout is not None
    for count in range(MAX_FOLDERS + 2):
        line = child.stdout.readline(_MAX_LINE_BYTES)
        if not line.endswith(b"\n"):
            return
        value = json.loads(line)
        if isinstance(value, dict):
            raise _ERRORS.get(value["error"], ObjectStoreError)(value["text"])
        if count <= MAX_FOLDERS:
            yield value


def main() -> None:
    """Write the names of folders below a URL, or an error, as lines of JSON.

    The arguments are the URL and the maximum memory in bytes.
    """
    url, memory_bytes = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(1, "wb") as pipe:
        try:
            for name in ObjectStore(url).folders():
                _send(pipe, name)
        except ObjectStoreError as error:
            _send(pipe, {"error": type(error).__name__, "text": str(error)})


def _send(pipe: BinaryIO, message: str | dict[str, str]) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")
