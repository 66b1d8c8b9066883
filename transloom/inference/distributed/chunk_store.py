"""The work on a file of lines: chunks, and their results in a folder beside the output.

    OUT.work/
      work.json       what the translations depend on: `WorkMetadata`
      lock            held by the command that works here
      00000007.txt    the sha256 of the rest, then the output of the eighth chunk

A result is written durably and whole, or is not there. So whoever starts the same command again
goes on behind the results that are there. When all are there, they become OUT by a rename.
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
from typing import Any, BinaryIO, Literal

from pydantic import ValidationError

from cluster.errors import ClusterError
from data_pipeline.corpora.lines import BYTE_ORDER_MARK
from data_pipeline.errors import CorpusError
from data_pipeline.storage.durable import sync_to_disk, write_atomically
from foundation.file_model import Count, FileModel, error_summary
from foundation.strict_json import SMALL, parse_object
from foundation.wording import format_value
from transloom.inference.text_input import lines_of
from transloom.inference.translate import as_sentence

SHA256_DIGITS = 64


class WorkMetadata(FileModel):
    """work.json: what the output depends on; the same command has the same.

    Attributes:
        checkpoints: the sha256 of each run's checkpoint.json, in the order of the runs.
        max_tokens: None: as many as memory has room for.
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
    """A file of lines, cut into chunks.

    Attributes:
        starts: the byte at which each chunk begins.
    """

    path: Path
    sha256: str
    lines: int
    lines_per_chunk: int
    starts: Sequence[int]
    changed_at: int

    def size(self, number: int) -> int:
        """The number of a chunk's lines."""
        return min(self.lines_per_chunk, self.lines - number * self.lines_per_chunk)

    def chunk(self, number: int) -> list[str]:
        """The lines of a chunk, without their ends.

        Raises:
            CorpusError: the file was changed since it was looked at.
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
    """Read a file once, to know that all of it can be read and where its chunks begin.

    Raises:
        CorpusError: it cannot be read, or a line is too long or not UTF-8.
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
                found = _count(data, file, lines_per_chunk, lines)
                if not found:
                    break
                starts.append(start)
                lines += found
    except OSError as error:
        raise CorpusError(f"{file} cannot be read: {error.strerror}") from error
    return InputFile(path, sha256, lines, lines_per_chunk, starts, changed_at)


def _count(data: BinaryIO, file: str, most: int, before: int) -> int:
    return sum(1 for _ in islice(lines_of(data, file, before), most))


class ChunkStore:
    """The results of a file's chunks."""

    def __init__(self, output: Path, chunks: int) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".work")
        self._chunks = chunks

    @contextmanager
    def owned(self, card: WorkMetadata) -> Iterator[list[int]]:
        """Work here alone; the chunks that are still to be done.

        Raises:
            ClusterError: another command works here, or something has changed since the work
                began; with both values.
        """
        if self.output.exists():
            raise ClusterError(
                f"{self.output} is there already: take it away, or name another --output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(
                    f"Another command works in {self.folder}: wait for it, or name another --output"
                ) from error
            self._check(card)
            yield [number for number in range(self._chunks) if self._result(number) is None]

    def keep(self, number: int, lines: Sequence[str]) -> None:
        """Keep a chunk's output through to the disk."""
        text = "".join(f"{line}\n" for line in lines).encode()
        write_atomically(
            self._file(number), f"{hashlib.sha256(text).hexdigest()}\n".encode() + text
        )

    def finish(self) -> None:
        """Make the output of all results, and take them away."""
        unfinished = self.folder / "output"
        with unfinished.open("wb") as output:
            for number in range(self._chunks):
                text = self._result(number)
                if text is None:
                    raise ClusterError(
                        f"{self._file(number)} is not as it was written: start the same command "
                        "again, which does this chunk once more"
                    )
                output.write(text)
            output.flush()
            os.fsync(output.fileno())
        unfinished.replace(self.output)
        sync_to_disk(self.output.parent)
        shutil.rmtree(self.folder)

    def _check(self, card: WorkMetadata) -> None:
        """Write down what the output depends on, or compare it with what is written."""
        file = self.folder / "work.json"
        if not file.exists():
            write_atomically(file, card.model_dump_json(indent=1) + "\n")
            return
        try:
            begun = WorkMetadata.model_validate(parse_object(file.read_bytes()[: SMALL.bytes + 1]))
        except ValueError as error:
            problem = error_summary(error) if isinstance(error, ValidationError) else str(error)
            raise ClusterError(
                f"{file} is damaged: {problem}. Take {self.folder} away to begin anew"
            ) from error
        there, here = begun.model_dump(), card.model_dump()
        changed = [name for name in here if there[name] != here[name]]
        if changed:
            differences = "; ".join(
                f"{n} {format_value(there[n])} → {format_value(here[n])}" for n in changed
            )
            raise ClusterError(
                f"The work in {self.folder} was begun with other settings or another input "
                f"(there → here): {differences}. Give back what has changed, or take the folder "
                "away to begin anew"
            )

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08}.txt"

    def _result(self, number: int) -> bytes | None:
        """A chunk's output; None if it is not there as it was written."""
        try:
            data = self._file(number).read_bytes()
        except FileNotFoundError:
            return None
        digest, text = data[:SHA256_DIGITS], data[SHA256_DIGITS + 1 :]
        return text if hashlib.sha256(text).hexdigest().encode() == digest else None
