"""Reader of Parquet files: each row is an example, with its texts in the recipe's columns.

Reading a Parquet file starts at its end, so the stream is copied to a temporary file first. A
separate process decodes it (`parquet_decoder.py`), since a small file can require any amount of
memory and time. The limits on this process's CPU time and output grow with the size of the file.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, astuple
from importlib.util import find_spec
from typing import BinaryIO

from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.corpora.formats import Example
from data_pipeline.corpora.parquet_decoder import (
    COMMAND,
    ENVIRONMENT,
    DecoderLimits,
    ParquetColumns,
)
from data_pipeline.errors import CorpusError
from data_pipeline.storage.budget import Budget
from foundation.optional_packages import install_command
from foundation.wording import span

_REMEDY = "Remove the file, or write it again as plain text or JSON if you trust its content"
# Decoding a page needs at most three times its size. Common writers make pages of about a megabyte.
MEMORY_BYTES = 640 * 1024**2
# Decoding takes less than a second for 100 MB of texts.
CPU_SECONDS = 30
CPU_SECONDS_PER_MEBIBYTE = 20
EXPANSION = Budget("bytes of rows for each byte of a Parquet file", 200, _REMEDY)
EXPANSION_FREE_BYTES = 64 * 1024**2
ROW_BYTES = 100  # counted for each row besides its texts; its Python objects take even more


def read_parquet(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
    """Yield the rows of a file as examples, in the file's order.

    Raises:
        CorpusError: pyarrow is missing, the file is damaged or requires too much memory or time, or
            a column is not as expected.
    """
    location = getattr(stream, "location", "the Parquet file")
    if find_spec("pyarrow") is None:
        raise CorpusError(
            f"{location} is a Parquet file, but pyarrow, which is needed to read it, is not "
            f"installed. Install it with {install_command('parquet')}."
        )
    columns = ParquetColumns(
        texts=[str(column) for column in corpus.columns.texts],
        score=None if corpus.columns.of_score is None else str(corpus.columns.of_score),
        numbers=[str(column) for column in corpus.columns.of_numbers],
    )
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy)
        size = copy.tell()
        copy.flush()
        row_bytes = 0
        for line in _decoded(copy, columns, _limits(size), location):
            message = json.loads(line)
            if "problem" in message:
                raise CorpusError(location + message["problem"])
            row_bytes += len(line) + ROW_BYTES * len(message["rows"])
            if row_bytes > EXPANSION_FREE_BYTES:
                EXPANSION.check(
                    row_bytes // max(1, size),
                    lambda problem: CorpusError(f"{location}: {problem}."),
                )
            for *texts, score in message["rows"]:
                yield Example(tuple(texts), score)


def _limits(size: int) -> DecoderLimits:
    return DecoderLimits(MEMORY_BYTES, CPU_SECONDS + CPU_SECONDS_PER_MEBIBYTE * size // 1024**2)


def _decoded(
    file: BinaryIO, columns: ParquetColumns, limits: DecoderLimits, location: str
) -> Iterator[bytes]:
    """Yield the lines that a decoding process writes, without the last one.

    The exit code of a process whose answer is complete does not matter.

    Raises:
        CorpusError: the process has reached a limit, or the decoder has crashed.
    """
    end = json.dumps({"end": True}).encode() + b"\n"
    with tempfile.TemporaryFile() as errors:
        decoder = subprocess.Popen(
            [*COMMAND, json.dumps(asdict(columns)), *map(str, astuple(limits))],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,  # Ctrl-C reaches only this process, which kills the decoder
        )
        assert decoder.stdout is not None
        try:
            for line in decoder.stdout:
                if line == end:
                    return
                yield line
            exit_code = decoder.wait()
            errors.seek(0)
            said = errors.read(2000).decode(errors="replace").strip()
        finally:
            decoder.kill()
            decoder.wait()
            decoder.stdout.close()
    if exit_code == -signal.SIGXCPU:
        raise CorpusError(
            f"{location}: expected to decode the file within {span(limits.cpu_seconds)} of "
            f"processor time, but decoding takes longer. {_REMEDY}."
        )
    raise CorpusError(
        f"{location}: pyarrow crashed while decoding the file, with exit code {exit_code} and at "
        f"most {limits.memory_bytes:,} bytes of memory. {_REMEDY}."
        + (f" Its output: {said}" if said else "")
    )
