"""Durable results of the chunks of an input file, in a folder next to the output.

    OUT.work/
      work.json       everything that determines the output: `WorkMetadata`
      lock            locked by the command that is using the folder
      00000007.txt    output of the eighth chunk, preceded by a line with its sha256

Each result is written atomically and synced to disk. If the command is interrupted and repeated, it
translates only the chunks without a stored result. When all results are stored, they are combined
into one file, which is renamed to OUT.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from cluster.errors import ClusterError
from data_pipeline.corpora.lines import BYTE_ORDER_MARK
from data_pipeline.errors import CorpusError
from data_pipeline.storage.regular_files import sync_to_disk, write_atomically
from foundation.file_model import SMALL, Count, FileModel, error_summary
from foundation.wording import format_value
from transloom.inference.text_input import lines_of
from transloom.inference.translate import as_sentence

SHA256_DIGITS = 64


class WorkMetadata(FileModel):
    """Contents of work.json: everything that determines the output.

    A repeated command continues the work only if these values are the same.

    Attributes:
        checkpoints: the sha256 of each run's checkpoint.json, in the order of the runs.
        max_tokens: maximum tokens of a sentence, or None if only memory limits them.
    """

    version: Literal[1] = 1
    checkpoints: list[str]
    precision: str
    decoding: dict[str, Any]
    input_sha256: str
    lines: Count
    lines_per_chunk: Count
    tag: str | None
    n_best: Count
    alignments: bool
    as_json: bool
    long_lines: str
    max_tokens: Count | None


@dataclass(frozen=True)
class InputFile:
    """Input file, divided into chunks of lines.

    Attributes:
        lines: number of lines.
        starts: byte offset of each chunk.
        changed_at: modification time of the file, in ns.
    """

    path: Path
    sha256: str
    lines: int
    lines_per_chunk: int
    starts: Sequence[int]
    changed_at: int

    def size(self, number: int) -> int:
        """Return the number of lines of a chunk."""
        return min(self.lines_per_chunk, self.lines - number * self.lines_per_chunk)

    def chunk(self, number: int) -> list[str]:
        """Read the lines of a chunk, without line ends.

        Raises:
            CorpusError: the file has changed since `scan_file`, or cannot be read.
        """
        try:
            with self.path.open("rb") as data:
                if os.fstat(data.fileno()).st_mtime_ns != self.changed_at:
                    raise CorpusError(
                        f"{self.path} was changed while it was translated: start the command again"
                    )
                data.seek(self.starts[number])
                raw = list(islice(iter(data.readline, b""), self.lines_per_chunk))
        except OSError as error:
            raise CorpusError(f"{self.path} cannot be read: {error.strerror}") from error
        if number == 0 and raw:
            raw[0] = raw[0].removeprefix(BYTE_ORDER_MARK)
        return [as_sentence(line.decode().removesuffix("\n").removesuffix("\r")) for line in raw]


def scan_file(file: str, lines_per_chunk: int) -> InputFile:
    """Read a whole file, to check that every line can be translated, and to find the chunks.

    Raises:
        CorpusError: the file cannot be read, or a line is too long or not UTF-8.
    """
    path = Path(file)
    starts, lines = [], 0
    try:
        with path.open("rb") as data:
            changed_at = os.fstat(data.fileno()).st_mtime_ns
            sha256 = hashlib.file_digest(data, "sha256").hexdigest()
            data.seek(0)
            while True:
                start = data.tell()
                found = sum(1 for _ in islice(lines_of(data, file, lines), lines_per_chunk))
                if not found:
                    break
                starts.append(start)
                lines += found
    except OSError as error:
        raise CorpusError(f"{file} cannot be read: {error.strerror}") from error
    return InputFile(path, sha256, lines, lines_per_chunk, starts, changed_at)


class ChunkStore:
    """Stored results of the chunks of an input file."""

    def __init__(self, output: Path, chunks: int) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".work")
        self._chunks = chunks

    @contextmanager
    def owned(self, card: WorkMetadata) -> Iterator[list[int]]:
        """Lock the folder during the context, and yield the numbers of the unfinished chunks.

        Args:
            card: the metadata of this command.

        Raises:
            ClusterError: the output exists, another command holds the lock, or `card` differs
                from the stored metadata. In the last case, the message lists the differences.
        """
        if self.output.exists():
            raise ClusterError(f"{self.output} already exists: remove it, or name another --output")
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(
                    f"Another command works in {self.folder}: wait until it ends, or name another "
                    "--output"
                ) from error
            self._check(card)
            yield [number for number in range(self._chunks) if self._result(number) is None]

    def keep(self, number: int, lines: Sequence[str]) -> None:
        """Store a chunk's output, and sync it to disk."""
        text = "".join(f"{line}\n" for line in lines).encode()
        write_atomically(
            self._file(number), f"{hashlib.sha256(text).hexdigest()}\n".encode() + text
        )

    def finish(self) -> None:
        """Combine all results into the output file, and remove the folder.

        Raises:
            ClusterError: a result is missing or damaged.
        """
        unfinished = self.folder / "output"
        with unfinished.open("wb") as output:
            for number in range(self._chunks):
                text = self._result(number)
                if text is None:
                    raise ClusterError(
                        f"{self._file(number)} is damaged: start the same command again, which "
                        "translates this chunk again"
                    )
                output.write(text)
            output.flush()
            os.fsync(output.fileno())
        unfinished.replace(self.output)
        sync_to_disk(self.output.parent)
        shutil.rmtree(self.folder)

    def _check(self, card: WorkMetadata) -> None:
        """Write the metadata, or compare it with the metadata that an earlier command has written.

        Raises:
            ClusterError: the metadata differs, or the earlier metadata is damaged.
        """
        file = self.folder / "work.json"
        if not file.exists():
            write_atomically(file, card.model_dump_json(indent=1) + "\n")
            return
        try:
            begun = WorkMetadata.from_json(file.read_bytes()[: SMALL.bytes + 1])
        except ValueError as error:
            raise ClusterError(
                f"{file} is damaged: {error_summary(error)}. Remove {self.folder} to start over"
            ) from error
        there, here = begun.model_dump(), card.model_dump()
        changed = [name for name in here if there[name] != here[name]]
        if changed:
            differences = "; ".join(
                f"{n} {format_value(there[n])} → {format_value(here[n])}" for n in changed
            )
            raise ClusterError(
                f"The work in {self.folder} was begun with other settings or another input "
                f"(then → now): {differences}. Undo the changes, or remove the folder to start over"
            )

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08}.txt"

    def _result(self, number: int) -> bytes | None:
        """Return a chunk's output, or None if it is missing or damaged."""
        try:
            data = self._file(number).read_bytes()
        except FileNotFoundError:
            return None
        digest, text = data[:SHA256_DIGITS], data[SHA256_DIGITS + 1 :]
        return text if hashlib.sha256(text).hexdigest().encode() == digest else None
