"""Parquet files that need more memory or time than their size suggests: see also test_bombs.py."""

import io
import re
import signal

import psutil
import pytest
from support.files.parquet_by_hand import compressed_value, empty_rows, repeated_rows

from data_pipeline.config.text import TextCorpusConfig
from data_pipeline.corpora import parquet
from data_pipeline.errors import CorpusError


def texts_of(data: bytes) -> list[str]:
    corpus = TextCorpusConfig(files=("a.parquet",))
    return [example.texts[0] for example in parquet.read_parquet(io.BytesIO(data), corpus)]


def test_files_made_by_hand_are_read_if_they_need_little_memory() -> None:
    assert texts_of(repeated_rows(b"abc", 1000)) == ["abc"] * 1000
    assert texts_of(empty_rows(5, rows_of_footer=5, row_groups=2)) == [""] * 10
    assert texts_of(compressed_value(b" " * 1000)) == [" " * 1000]


def test_the_limit_applies_to_decoded_bytes_and_not_to_those_in_the_footer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "MEMORY_BYTES", 80_000_000)
    with pytest.raises(
        CorpusError, match=r"at most 80,000,000 bytes of memory .* Write the file ag"
    ):
        texts_of(compressed_value(b" " * 200_000_000))
    with pytest.raises(
        CorpusError, match=r"at most 80,000,000 bytes of memory .* Write the file ag"
    ):
        texts_of(empty_rows(2_000_000_000, rows_of_footer=1))


def test_empty_rows_count_towards_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "EXPANSION_FREE_BYTES", 1_000_000)
    with pytest.raises(CorpusError, match=r"at most 200 bytes of rows .* Remove the file"):
        texts_of(repeated_rows(b"", 2_000_000_000))


def test_the_processor_time_of_the_decoder_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row group is the same page, which takes time and has one row."""
    monkeypatch.setattr(parquet, "CPU_SECONDS", 0)
    with pytest.raises(CorpusError, match=r"within 0 s of processor time.* Remove the file"):
        texts_of(empty_rows(20_000_000, rows_of_footer=1, row_groups=1000))


def test_the_rows_of_a_decoder_that_crashes_after_its_answer_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """pyarrow may abort in a destructor while one of its threads still runs."""
    aborts = f"import os; os._exit = lambda code: os.abort(); {parquet.COMMAND[-1]}"
    monkeypatch.setattr(parquet, "COMMAND", (*parquet.COMMAND[:-1], aborts))
    assert texts_of(repeated_rows(b"abc", 1000)) == ["abc"] * 1000


def test_an_answer_without_its_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    part = """print('{"rows": [["abc", null]]}')"""
    monkeypatch.setattr(parquet, "COMMAND", (*parquet.COMMAND[:-1], part))
    with pytest.raises(CorpusError, match="exit code 0"):
        texts_of(repeated_rows(b"abc", 2))


def test_a_decoder_that_crashes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    abort = "import os, sys; print('corrupted size', file=sys.stderr, flush=True); os.abort()"
    monkeypatch.setattr(parquet, "COMMAND", (*parquet.COMMAND[:-1], abort))
    with pytest.raises(CorpusError, match=re.escape(f"{-signal.SIGABRT}")) as failure:
        texts_of(repeated_rows(b"abc", 1))
    assert "corrupted size" in str(failure.value)
    assert "Remove the file" in str(failure.value)


def test_the_decoder_ends_when_its_reader_is_closed() -> None:
    before = set(psutil.Process().children())
    examples = parquet.read_parquet(
        io.BytesIO(repeated_rows(b"abc", 2_000_000_000)), TextCorpusConfig(files=("a.parquet",))
    )
    assert next(examples).texts == ("abc",)
    (decoder,) = set(psutil.Process().children()) - before
    examples.close()
    assert not decoder.is_running()
