"""Decode a Parquet file in a process with limits on memory and CPU time.

    stdin: the file      argv: `ParquetColumns` as JSON, and the values of `DecoderLimits`
    stdout: a JSON line for each batch: {"rows": [[text, …, score], …]} or {"problem": "…"},
            and {"end": true}, without which the answer is incomplete

pyarrow decodes a page at once, and a page of some kilobytes can require gigabytes and contain
billions of rows. The footer does not reveal this, and page headers reveal it only partly. The
kernel therefore enforces the limits, and a decoder that exceeds them affects no other process. The
sizes in the footer are only used as a hint.
"""

import json
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from data_pipeline.corpora.formats import Example, characters, in_parts, read_score
from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import Budget
from foundation.wording import join_first, join_items

# -P: a folder named `data_pipeline` in the current folder must not shadow this package.
COMMAND = (
    *(sys.executable, "-P", "-c"),
    "from data_pipeline.corpora.parquet_decoder import main; main()",
)
# Other allocators, or one arena for each thread, would reserve addresses that are never used but
# count towards the memory limit.
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
ROWS_PER_BATCH = 256
BATCH_BYTES = 16 * 1024**2
SENT_CHARACTERS = 1024 * 1024
BUFFER_BYTES = 1024 * 1024  # per column; without a buffer, pyarrow reads a column's whole row group
# The footer describes each column of each row group. pyarrow needs about 150 times the footer's
# size in memory.
FOOTER = Budget(
    "bytes in the footer of a Parquet file",
    2 * 1024**2,
    "Write the file again with fewer columns or larger row groups, or split it",
)
NAMES_SHOWN = 20


@dataclass(frozen=True)
class ParquetColumns:
    """Columns to decode, by name."""

    texts: list[str]
    score: str | None
    numbers: list[str]  # columns whose integers are read as texts

    @property
    def wanted(self) -> list[str]:
        return [*self.texts, *([self.score] if self.score else [])]


@dataclass(frozen=True)
class DecoderLimits:
    """Memory and CPU time that a decoding process may use in addition to its usage at startup."""

    memory_bytes: int
    cpu_seconds: int

    def apply(self) -> None:
        """Limit this process for the rest of its lifetime."""
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory_bytes = pages * resource.getpagesize() + self.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_seconds = int(usage.ru_utime + usage.ru_stime) + 1 + self.cpu_seconds
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Decode the file at stdin, write its rows to stdout, and exit.

    The process exits without destructors, because those of pyarrow may abort it while a thread of
    pyarrow still runs.
    """

    # Import pyarrow before the limits apply, so that they do not include the import.
    import pyarrow.parquet  # noqa: F401

    columns = ParquetColumns(**json.loads(sys.argv[1]))
    limits = DecoderLimits(*map(int, sys.argv[2:]))
    limits.apply()
    with open(0, "rb") as file, open(1, "wb") as pipe:
        try:
            examples = _examples(file, columns)
            for part in in_parts(examples, ROWS_PER_BATCH, SENT_CHARACTERS, characters):
                _send(pipe, {"rows": [[*example.texts, example.score] for example in part]})
        except CorpusError as error:
            _send(pipe, {"problem": str(error)})
        except MemoryError:
            problem = (
                f": expected at most {limits.memory_bytes:,} bytes of memory to decode the file, "
                "but decoding needs more. Write the file again with pages of a megabyte and "
                "smaller row groups, or remove it."
            )
            _send(pipe, {"problem": problem})
        _send(pipe, {"end": True})
    os._exit(0)


def _send(pipe: BinaryIO, message: dict[str, Any]) -> None:
    line = json.dumps(message, ensure_ascii=False).encode()
    pipe.write(line + b"\n")
    pipe.flush()


def _examples(file: BinaryIO, columns: ParquetColumns) -> Iterator[Example]:
    """Yield the rows of a file as examples, in the file's order.

    Raises:
        CorpusError: the file is damaged, or a column is not as expected. The caller must put the
            file's location before the message.
    """
    from pyarrow import ArrowException, parquet

    wanted = columns.wanted
    _check_footer(file)
    try:
        metadata = parquet.read_metadata(file)
        names = metadata.schema.to_arrow_schema().names
        if set(wanted) - set(names):
            shown = join_first([name[:80] for name in names], NAMES_SHOWN)
            raise CorpusError(
                f": expected the columns {join_items(wanted)}, found {shown}. Correct "
                "columns in the recipe."
            )
        _check_columns(metadata, wanted)
        with parquet.ParquetFile(file, metadata=metadata, buffer_size=BUFFER_BYTES) as opened:
            rows = _rows_per_batch(metadata)
            batches = opened.iter_batches(rows, columns=wanted, use_threads=False)
            lists = (batch.select(wanted).to_pylist() for batch in batches)
            for number, row in enumerate(chain.from_iterable(lists), 1):
                yield _example(row, columns, f", row {number:,}")
    except (CorpusError, MemoryError):
        raise
    except (ArrowException, OSError, KeyError, ValueError) as error:
        raise CorpusError(
            f" is not a complete Parquet file ({error}). Download the file again, or correct "
            "format in the recipe."
        ) from error


def _check_footer(file: BinaryIO) -> None:
    """Check the footer's length at the end of the file, if the file is long enough to have one."""
    size = file.seek(0, os.SEEK_END)
    if size >= 8:
        file.seek(-8, os.SEEK_END)
        footer_bytes = int.from_bytes(file.read(4), "little")
        # pyarrow rejects a length that exceeds the file.
        FOOTER.check(min(footer_bytes, size), lambda problem: CorpusError(f": {problem}."))
    file.seek(0)


def _rows_per_batch(metadata: Any) -> int:
    """Return the number of rows to decode at once; fewer if the footer indicates long rows."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    bytes_per_row = sum(group.total_byte_size for group in groups) // max(1, metadata.num_rows)
    return max(1, min(ROWS_PER_BATCH, BATCH_BYTES // max(1, bytes_per_row)))


def _check_columns(metadata: Any, wanted: Sequence[str]) -> None:
    """Check that the requested columns have one value per row, not lists or nested columns."""
    leaves = {metadata.schema.column(number).path for number in range(metadata.num_columns)}
    for name in wanted:
        if name not in leaves:
            raise CorpusError(
                f": expected a value in each row of the column {name!r}, found lists or nested "
                "columns. Correct columns in the recipe, or write the file again."
            )


def _example(row: dict[str, Any], columns: ParquetColumns, place: str) -> Example:
    for column in columns.numbers:
        if type(row[column]) is int:  # unlike isinstance, excludes bool
            row[column] = str(row[column])
    for column in columns.texts:
        if not isinstance(row[column], str):
            raise CorpusError(
                f"{place}: expected a string in the column {column!r}, found {row[column]!r:.80}. "
                "Correct the file, or columns in the recipe."
            )
    try:
        return Example(
            tuple(row[column] for column in columns.texts),
            None if columns.score is None else read_score(row[columns.score]),
        )
    except ValueError as error:
        raise CorpusError(
            f"{place}: {error}. Correct the file, or columns in the recipe."
        ) from error
