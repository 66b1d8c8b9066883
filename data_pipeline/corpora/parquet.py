"""Parquet files: a row is an example, the recipe's columns have its texts.

A Parquet file is read from its end, so it is copied to a temporary file first. pyarrow is an
extra, and imported when the first file is read.

Some kilobytes of Parquet can hold terabytes of text: a value is written once, and each row refers
to it. So values stay in their dictionary until a row is asked for, and rows come one at a time.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_pipeline.corpora.formats import Example, read_score
from data_pipeline.corpus_config import CorpusConfig
from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import Budget
from data_pipeline.wording import listed

ROWS_PER_BATCH = 256
BUFFER_BYTES = 1024 * 1024  # of a column; without, pyarrow reads as much as a row group has of it
# pyarrow takes some 150 times as much memory for what is in it: columns in each row group.
FOOTER = Budget(
    "bytes in the footer of a Parquet file",
    2 * 1024**2,
    "Write the file anew with fewer columns or larger row groups, or split it",
)
NAMES_SHOWN = 20
# pyarrow decompresses a page at once. The format limits a page to 2 GiB.
EXPANSION = Budget(
    "bytes of values for each byte of a column in a row group",
    200,
    "Leave the file out, or write it anew without compression if you know what is in it",
)
EXPANSION_FREE_BYTES = 256 * 1024**2


def read_parquet(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
    """The rows of a file, in its order.

    Raises:
        CorpusError: pyarrow is missing, the file is damaged, or a column is not as expected.
    """
    location = getattr(stream, "location", "the Parquet file")
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise CorpusError(
            f"{location} is a Parquet file, and pyarrow, which reads it, is not installed. Install "
            "it with: pip install 'transloom[parquet]'."
        ) from error
    texts = [str(column) for column in corpus.columns.texts]
    score = None if corpus.columns.of_score is None else str(corpus.columns.of_score)
    wanted = [*texts, *([score] if score else [])]
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        _check_footer(copy, location)
        try:
            metadata = parquet.read_metadata(copy)
            names = metadata.schema.to_arrow_schema().names
            if set(wanted) - set(names):
                raise CorpusError(
                    f"{location}: expected the columns {listed(wanted)}, found "
                    f"{_shown(names)}. Correct columns in the recipe."
                )
            as_written = _check_columns(metadata, wanted, location)
            with parquet.ParquetFile(
                copy, metadata=metadata, read_dictionary=as_written, buffer_size=BUFFER_BYTES
            ) as file:
                number = 0
                for batch in file.iter_batches(ROWS_PER_BATCH, columns=wanted):
                    columns = {name: batch.column(name) for name in wanted}
                    for index in range(batch.num_rows):
                        number += 1
                        row = {name: column[index].as_py() for name, column in columns.items()}
                        place = f"{location}, row {number:,}"
                        yield _example(_with_digits(row, corpus), texts, score, place)
        except (ArrowException, OSError) as error:
            raise CorpusError(
                f"{location} is no whole Parquet file ({error}). Get it again, or correct format "
                "in the recipe."
            ) from error


def _shown(names: list[str]) -> str:
    some = [name[:80] for name in names[:NAMES_SHOWN]]
    return listed(some) + (f" and {len(names) - NAMES_SHOWN:,} more" if names[NAMES_SHOWN:] else "")


def _check_footer(copy: BinaryIO, location: str) -> None:
    """Compares the length that the end of the file gives, if it is long enough to have one."""
    size = copy.seek(0, os.SEEK_END)
    if size >= 8:
        copy.seek(-8, os.SEEK_END)
        footer_bytes = int.from_bytes(copy.read(4), "little")
        # A length that is more than the file has, pyarrow refuses.
        FOOTER.check(
            min(footer_bytes, size), lambda problem: CorpusError(f"{location}: {problem}.")
        )
    copy.seek(0)


def _check_columns(metadata: Any, wanted: list[str], location: str) -> list[str]:
    """Checks types and sizes by the footer; the columns whose values stay in dictionaries."""
    leaves = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    numbers = {leaf.path: number for number, leaf in enumerate(leaves)}
    for name in wanted:
        if name not in numbers:
            raise CorpusError(
                f"{location}: expected a value in each row of the column {name!r}, found lists or "
                "inner columns. Correct columns in the recipe, or write the file anew."
            )
        for group in range(metadata.num_row_groups):
            column = metadata.row_group(group).column(numbers[name])
            _check_expansion(column, f"{location}, column {name!r} of row group {group}")
    return [name for name in wanted if leaves[numbers[name]].physical_type == "BYTE_ARRAY"]


def _check_expansion(column: Any, place: str) -> None:
    size, stored = column.total_uncompressed_size, column.total_compressed_size
    if size > EXPANSION_FREE_BYTES:
        EXPANSION.check(size // max(1, stored), lambda problem: CorpusError(f"{place}: {problem}."))


def _with_digits(row: dict[str, Any], corpus: CorpusConfig) -> dict[str, Any]:
    """A row, in which whole numbers that stand for texts are these."""
    for column in corpus.columns.of_numbers:
        if type(row[str(column)]) is int:  # a truth value is none
            row[str(column)] = str(row[str(column)])
    return row


def _example(row: dict[str, Any], texts: list[str], score: str | None, place: str) -> Example:
    for column in texts:
        if not isinstance(row[column], str):
            raise CorpusError(
                f"{place}: expected a string in the column {column!r}, found {row[column]!r:.80}. "
                "Correct the file, or columns in the recipe."
            )
    try:
        return Example(
            tuple(row[column] for column in texts),
            None if score is None else read_score(row[score]),
        )
    except ValueError as error:
        raise CorpusError(
            f"{place}: {error}. Correct it there, or columns in the recipe."
        ) from error
