"""Parquet files: a row is an example, the recipe's columns have its texts.

A Parquet file is read from its end, so it is copied to a temporary file first. pyarrow is an
extra, and imported when the first file is read.
"""

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_pipeline.corpora.formats import Example, read_score
from data_pipeline.corpus_config import CorpusConfig
from data_pipeline.errors import CorpusError
from data_pipeline.wording import listed

ROWS_PER_BATCH = 256


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
        try:
            with parquet.ParquetFile(copy) as file:
                missing = set(wanted) - set(file.schema_arrow.names)
                if missing:
                    raise CorpusError(
                        f"{location}: expected the columns {listed(wanted)}, found "
                        f"{listed(file.schema_arrow.names)}. Correct columns in the recipe."
                    )
                number = 0
                for batch in file.iter_batches(ROWS_PER_BATCH, columns=wanted):
                    for row in batch.to_pylist():
                        number += 1
                        yield _example(row, texts, score, f"{location}, row {number:,}")
        except (ArrowException, OSError) as error:
            raise CorpusError(
                f"{location} is no whole Parquet file ({error}). Get it again, or correct format "
                "in the recipe."
            ) from error


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
