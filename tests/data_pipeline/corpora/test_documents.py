"""Read documents in every format and in parts of files, and refuse every kind of damage."""

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quality.memory import measured_peak

from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.text import TextCorpusConfig
from data_pipeline.corpora import documents, parquet
from data_pipeline.corpora.corpus import CorpusReader
from data_pipeline.corpora.formats import Example, parse
from data_pipeline.corpora.readers import READERS
from data_pipeline.errors import CorpusError

LONG = "a line of a long document\n" * 100_000  # 2.6 MB
DOCUMENTS = ["one", " two\n\tlines ", "", "été\n\n\nend\n", "a\rb\u2028c", LONG]


def read(corpus: TextCorpusConfig, per_chunk: int = 3) -> list[str]:
    reader = CorpusReader(corpus, mirror=None, cache=Path("/none"))
    texts: list[str] = []
    for chunk in reader.chunks(per_chunk):
        assert chunk.first == len(texts)
        examples = parse(chunk)
        assert len(examples) == chunk.content.count <= per_chunk
        texts += [text for example in examples for text in example.texts]
    return texts


def corpus_of(path: Path, data: bytes, **settings: Any) -> TextCorpusConfig:
    path.write_bytes(data)
    return TextCorpusConfig(files=(str(path),), **settings)


# Every format


@pytest.mark.parametrize("per_chunk", [1, 3, 1000])
def test_documents_are_read_from_json_lines(tmp_path: Path, per_chunk: int) -> None:
    lines = [json.dumps({"meta": {"body": text}}) + "\n" for text in DOCUMENTS]
    columns = {"text": "meta.body"}
    data = gzip.compress("".join(lines).encode())
    assert read(corpus_of(tmp_path / "a.jsonl.gz", data, columns=columns), per_chunk) == DOCUMENTS


def test_documents_are_read_from_webdataset(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, text in enumerate(DOCUMENTS):
            info = tarfile.TarInfo(f"{number:06}.txt")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    corpus = corpus_of(tmp_path / "a.tar", buffer.getvalue(), columns={"text": "txt"})
    assert read(corpus) == DOCUMENTS


def test_each_file_can_be_a_document(tmp_path: Path) -> None:
    for number, text in enumerate(DOCUMENTS):
        (tmp_path / f"{number}.txt").write_bytes(text.replace("\n", "\r\n").encode())
    names = f"{tmp_path}/{{0..{len(DOCUMENTS) - 1}}}.txt"
    assert read(TextCorpusConfig(files=(names,), documents="file")) == DOCUMENTS


@pytest.mark.parametrize("per_chunk", [1, 2, 1000])
def test_each_line_can_be_a_document(tmp_path: Path, per_chunk: int) -> None:
    data = b"\xef\xbb\xbf one \r\n\n\ttwo\rx\xe2\x80\xa8\nlast"
    corpus = corpus_of(tmp_path / "a.txt", data)
    assert read(corpus, per_chunk) == [" one ", "", "\ttwo\rx\u2028", "last"]


@pytest.mark.parametrize("per_chunk", [1, 2, 3, 1000])
def test_each_paragraph_can_be_a_document(tmp_path: Path, per_chunk: int) -> None:
    data = b"\xef\xbb\xbf\n \t\r\none\r\n  two \n\r\n\nthree\n \x0b\x0c\n\nfour\nfive"
    corpus = corpus_of(tmp_path / "a.txt", data, documents="blank_line")
    assert read(corpus, per_chunk) == ["one\n  two ", "three", "four\nfive"]


paragraph_texts = st.lists(
    st.sampled_from(["a", "é", " ", "\n", "\r\n", "\t", "\u2028", "\r"]), max_size=40
).map("".join)


@settings(deadline=None)
@given(text=paragraph_texts, per_chunk=st.integers(1, 9))
def test_paragraphs_are_the_lines_between_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, text: str, per_chunk: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "a.txt"
    expected: list[str] = []
    was_blank = True
    ends = "\n" if "\n" in text else "\r"
    for line in f"x{text}".replace("\r\n", "\n").split(ends):
        is_blank = not line.strip(" \t\r")
        if not is_blank:
            expected[len(expected) :] = [line] if was_blank else [f"{expected.pop()}\n{line}"]
        was_blank = is_blank
    corpus = corpus_of(path, f"x{text}".encode(), documents="blank_line")
    assert read(corpus, per_chunk) == expected


def test_documents_and_scores_are_read_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    scores = [float(number) for number in range(len(DOCUMENTS))]
    table = pa.table({"id": scores, "body": DOCUMENTS, "score": scores})
    parquet_of(table, path)
    corpus = TextCorpusConfig(files=(str(path),), columns={"text": "body"})
    assert read(corpus) == DOCUMENTS
    scored = TextCorpusConfig(
        files=(str(path),), columns={"text": "body", "score": "score"}, min_score=1
    )
    reader = CorpusReader(scored, mirror=None, cache=Path("/none"))
    found = [example.score for chunk in reader.chunks(10) for example in parse(chunk)]
    assert found == scores


def parquet_of(table: Any, path: Path) -> None:
    from pyarrow.parquet import write_table

    write_table(table, path)


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet_of(pa.table({"text": ["a", None]}), path)
    with pytest.raises(CorpusError, match=r"a\.parquet, row 2: expected a string .* found None"):
        read(TextCorpusConfig(files=(str(path),)))
    with pytest.raises(CorpusError, match=r"expected the columns body, found text"):
        read(TextCorpusConfig(files=(str(path),), columns={"text": "body"}))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match="is not a complete Parquet file"):
        read(TextCorpusConfig(files=(str(path),)))


def test_missing_pyarrow_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CorpusError, match=r"pip install 'pyarrow[^ ]+'"):
        next(parquet.read_parquet(io.BytesIO(), TextCorpusConfig(files=("a.parquet",))))


def test_a_registered_reader_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_semicolons(stream: BinaryIO, corpus: CorpusConfig) -> Iterator[Example]:
        for text in stream.read().decode().split(";"):
            yield Example((text,), None)

    entries = {**READERS._entries, "semicolons": read_semicolons}
    monkeypatch.setattr(READERS, "_entries", entries)
    corpus = corpus_of(tmp_path / "a", b"one;two\r\nlines;;four", format="semicolons")
    assert read(corpus) == ["one", "two\nlines", "", "four"]


def test_invalid_examples_of_a_registered_reader_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Example] = []
    monkeypatch.setattr(READERS, "_entries", {**READERS._entries, "given": lambda *_: given})
    monkeypatch.setattr("data_pipeline.corpora.cutting.MAX_DOCUMENT_BYTES", 1000)
    corpus = corpus_of(tmp_path / "a", b"", format="given")
    given[:] = [Example(("a",), None), Example(("a", "b"), None)]
    with pytest.raises(CorpusError, match=r"/a, document 2: expected 1 text, found 2\. .*given"):
        read(corpus)
    given[:] = [Example(("a" * 1001,), None)]
    with pytest.raises(
        CorpusError, match=r"/a, document 1: expected at most 1,000 characters, found 1,001"
    ):
        read(corpus)


# Parts


@settings(deadline=None)
@given(
    st.lists(st.text(alphabet=["a", "é", "\n", " "], max_size=9), min_size=1, max_size=30),
    st.lists(st.floats(0, 1), max_size=3),
    st.sampled_from(["line", "blank_line", "jsonl"]),
    st.integers(1, 5),
)
def test_the_parts_of_a_file_have_each_document_once(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    cuts: list[float],
    kind: str,
    per_chunk: int,
) -> None:
    folder = tmp_path_factory.mktemp("t")
    given: dict[str, str] = {} if kind == "jsonl" else {"documents": kind, "format": "text"}
    lines = [json.dumps({"text": text}) for text in texts] if kind == "jsonl" else ["x", *texts]
    data = "\n".join(lines).encode()
    borders = sorted({0.0, 1.0, *cuts})
    compressed = gzip.compress(data)
    found: list[str] = []
    for part in pairwise(borders):
        for name, content in (("a.jsonl", data), ("b.jsonl.gz", compressed)):
            corpus = corpus_of(folder / name, content, part=part, **given)
            texts_of_part = []
            with suppress(CorpusError):  # no document begins in this part
                texts_of_part = read(corpus, per_chunk)
            if name == "a.jsonl":
                plain = texts_of_part
        assert texts_of_part == plain
        found += plain
    assert found == read(corpus_of(folder / "c.jsonl", data, **given))


def test_a_part_has_its_share_of_the_bytes_and_the_hash_of_the_whole_file(tmp_path: Path) -> None:
    data = b"".join(b"%05d\n" % number for number in range(1000))
    path = tmp_path / "a.txt"
    hashes = {"files_sha256": [hashlib.sha256(data).hexdigest()]}
    texts = read(corpus_of(path, data, part=(0.25, 0.75), **hashes))
    assert texts == [f"{number:05}" for number in range(250, 750)]
    with pytest.raises(CorpusError):
        read(corpus_of(path, data, part=(0.25, 0.75), files_sha256=["0" * 64]))


def test_an_invalid_line_in_a_part_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "a.txt", b"abc\n" * 99 + b"\xff\n", part=(0.5, 1))
    with pytest.raises(CorpusError):
        read(corpus)


# Every kind of damage


@pytest.mark.parametrize("documents_end", ["line", "blank_line", "file"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data + b"\xff", r"a\.txt, line 5: the byte 0xff.*not UTF-8"),
        (lambda data: gzip.compress(data)[:-9], r"a\.txt is a damaged gzip file"),
    ],
)
def test_damaged_text_is_reported_with_the_file(
    tmp_path: Path, change: Callable[[bytes], bytes], message: str, documents_end: str
) -> None:
    data = change(b"one\ntwo\n\nthree\n")
    with pytest.raises(CorpusError, match=message):
        read(corpus_of(tmp_path / "a.txt", data, documents=documents_end))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"body": "x"}', r"line 2: expected the key 'text'"),
        (b'{"text": 5}', r"line 2: expected a string at 'text', found 5"),
        (b'{"text": "\\ud800"}', r"line 2: .*surrogates not allowed"),
        (b"{", r"line 2: expected a JSON object"),
    ],
)
def test_invalid_json_is_reported_with_its_line(tmp_path: Path, line: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read(corpus_of(tmp_path / "a.jsonl", b'{"text": "x"}\n' + line))


@pytest.mark.parametrize("documents_end", ["line", "blank_line"])
def test_empty_text_is_refused(tmp_path: Path, documents_end: str) -> None:
    with pytest.raises(CorpusError, match="expected at least one document, found none"):
        read(corpus_of(tmp_path / "a.txt", b"", documents=documents_end))


@pytest.mark.parametrize("documents_end", ["line", "blank_line", "file"])
def test_documents_longer_than_the_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents_end: str
) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 2_000_000)
    end = b" " if documents_end == "line" else b"\n"
    data = b"short\n\n" + (b"x" * 999 + end) * 2001
    with pytest.raises(CorpusError, match=r"a\.txt, line [13]: .*longer than 2,000,000 bytes"):
        read(corpus_of(tmp_path / "a.txt", data, documents=documents_end), 1000)
    shorter = b"short\n\n" + (b"x" * 999 + end) * 1999
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 2_100_000)
    assert len(read(corpus_of(tmp_path / "a.txt", shorter, documents=documents_end), 1000)[-1]) > 10


# Memory


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "block", "settings"),
    [
        ("a.jsonl.gz", b'{"text": "some words of a document"}\n' * 25_000, {}),
        ("a.txt.gz", b"some words\nof a document\n\n" * 40_000, {"documents": "blank_line"}),
        ("a.txt.gz", b"a document of one line\n" * 40_000, {"part": (0.1, 0.9)}),
    ],
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, name: str, block: bytes, settings: dict[str, Any]
) -> None:
    peaks = []
    for million_bytes in (10, 40):
        corpus = corpus_of(tmp_path / name, gzip.compress(block, 1) * million_bytes, **settings)
        reader = CorpusReader(corpus, mirror=None, cache=Path("/none"))
        with measured_peak() as peak:
            count = sum(chunk.content.count for chunk in reader.chunks(5000))
        peaks.append(peak.bytes)
        assert count >= 0.7 * 25_000 * million_bytes
    assert peaks[1] < 1.1 * peaks[0] < 30_000_000


def test_parts_of_a_file_with_one_document_are_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    text = "".join(f"line {number}\n" for number in range(100))
    path.write_text(text)
    borders = [0.0, 0.333, 0.9, 1.0]
    parts = [
        read(TextCorpusConfig(files=(str(path),), documents="file", part=part))
        for part in pairwise(borders)
    ]
    assert all(len(part) == 1 for part in parts)
    assert "".join(document for part in parts for document in part) == text
