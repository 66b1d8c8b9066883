"""Cut corpora into whole lines and samples for any size of blocks, within limits."""

import io
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
from backports import zstd
from support.files.tar_by_hand import ZEROS, entry, pax
from support.quality import memory
from support.quality.memory import at_most

from data_pipeline.config.pair import PairColumns, PairCorpusConfig
from data_pipeline.corpora import cutting
from data_pipeline.corpora.cutting import cut_aligned, cut_file
from data_pipeline.corpora.formats import ChunkLines, CorpusSample, Samples
from data_pipeline.corpora.lines import MAX_LINE_BYTES, WHOLE_FILE, LineReader
from data_pipeline.errors import CorpusError
from data_pipeline.storage.locations import LocationStream

CORPUS = PairCorpusConfig(files=("a.tar",), columns=PairColumns(source="en.txt", target="DE.txt"))


def stream_of(data: bytes, location: str = "a") -> LocationStream:
    return LocationStream(location, io.BytesIO(data), len(data))


def reader_of(data: bytes) -> LineReader:
    return LineReader(stream_of(data))


def read_all(reader: LineReader, count: int = 1000) -> list[ChunkLines]:
    parts = []
    while (lines := reader.take(count)).count:
        parts.append(lines)
    return parts


@pytest.mark.parametrize("block_bytes", [7, 8, 100])
@pytest.mark.parametrize("count", [1, 2, 5, 1000])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_lines_are_whole_for_any_size_of_blocks(
    block_bytes: int, count: int, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.corpora.lines.BLOCK_BYTES", block_bytes)
    data = b"\n".join(b"x" * (i % 7) for i in range(31)) + end
    expected = data.splitlines(keepends=True)
    reader = reader_of(data)
    found: list[bytes] = []
    for lines in read_all(reader, count):
        assert lines.first == len(found) + 1
        assert lines.count == min(count, len(expected) - len(found))
        found += lines.data.splitlines(keepends=True)
    assert found == expected
    assert reader.lines == len(expected)


def test_parts_have_a_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipeline.corpora.lines.BLOCK_BYTES", 100)
    reader = reader_of(b"0123456789\n" * 100)
    assert reader.take(100, max_bytes=200).count < 30
    # Parts of the second of two aligned files have as many lines as the first's, of any length.
    parts = list(cut_aligned([reader_of(b"\n" * 100), reader_of(b"0123456789\n" * 100)], 100))
    assert [part.sides[1].count for part in parts] == [100]


@pytest.mark.parametrize("before", [0, 3, 100_000])
@pytest.mark.parametrize("after", [b"", b"\nmore"])
def test_lines_longer_than_the_limit_are_refused(before: int, after: bytes) -> None:
    allowed = b"line\n" * before + b"x" * (MAX_LINE_BYTES - len(after[:1]))
    assert sum(lines.count for lines in read_all(reader_of(allowed + after))) > before
    with pytest.raises(CorpusError):
        read_all(reader_of(allowed + b"x" + after))


def test_a_decompression_bomb_is_refused_at_its_beginning() -> None:
    stream = stream_of(zstd.compress(bytes(1_000_000)) * 10_000)  # ten gigabytes of zeros
    with at_most(20_000_000), pytest.raises(CorpusError):
        LineReader(stream).take(1)


@pytest.mark.parametrize("block_bytes", [7, 100])
@pytest.mark.parametrize("end", [b"", b"\r", b"\r\r"])
def test_carriage_returns_end_the_lines_of_a_file_without_newlines(
    block_bytes: int, end: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipeline.corpora.lines.BLOCK_BYTES", block_bytes)
    data = b"\r".join(b"%d" % (i % 70) for i in range(31)) + end
    newlines = data.replace(b"\r", b"\n")
    assert read_all(reader_of(data), 4) == read_all(reader_of(newlines), 4)
    assert b"".join(lines.data for lines in read_all(reader_of(data))) == newlines


def test_carriage_returns_before_a_newline_are_part_of_a_line() -> None:
    data = b"a\rb\nc\r\n"
    assert [lines.data for lines in read_all(reader_of(data))] == [data]


def test_line_ends_of_two_kinds_are_reported() -> None:
    data = b"one\r" * MAX_LINE_BYTES + b"two\n"
    with pytest.raises(CorpusError, match=r"a has lines that end at a carriage return .*tr '\\r'"):
        read_all(reader_of(data), 10**9)


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32"])
@pytest.mark.parametrize("text", ["été\nhiver\n", "a"])
def test_text_in_another_encoding_is_reported(encoding: str, text: str) -> None:
    if encoding == "UTF-16BE" and len(text) == 1:
        text *= 2  # a single letter after a NUL is valid UTF-8
    with pytest.raises(
        CorpusError, match=rf"a is text in {encoding}.*iconv -f {encoding} -t UTF-8"
    ):
        reader_of(text.encode(encoding)).take(1)


RECORDS = {
    "tsv": (b"un\tone\ndeux\ttwo\n", PairColumns(source=0, target=1)),
    "jsonl": (
        b'{"f": "un", "e": "one"}\n{"f": "deux", "e": "two"}\n',
        PairColumns(source="f", target="e"),
    ),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n \n", b"  ", b"\n" * 50, b"\x1a"])
@pytest.mark.parametrize("per_part", [1, 2, 3, 1000])
def test_blank_lines_at_the_end_are_no_records(name: str, end: bytes, per_part: int) -> None:
    data, columns = RECORDS[name]
    corpus = PairCorpusConfig(files=(f"a.{name}",), columns=columns)
    for text in (data, data[:-1], data + end):
        parts = list(cut_file(stream_of(text), corpus, WHOLE_FILE, per_part))
        found = [example.texts for part in parts for example in part.examples()]
        assert found == [("un", "one"), ("deux", "two")]
        assert sum(part.count for part in parts) == 2


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("per_part", [1, 2, 3, 4, 1000])
def test_a_blank_line_between_records_is_refused(name: str, per_part: int) -> None:
    data, columns = RECORDS[name]
    corpus = PairCorpusConfig(files=(f"a.{name}",), columns=columns)
    parts = cut_file(stream_of(data + b"\n\n" + data), corpus, WHOLE_FILE, per_part)
    with pytest.raises(CorpusError):
        list(chain.from_iterable(part.examples() for part in parts))


def test_empty_values_of_a_single_column_stay_at_the_end() -> None:
    corpus = PairCorpusConfig(files=("a.tsv",), columns=PairColumns(source=0, target=0))
    (part,) = cut_file(stream_of(b"un\n\n"), corpus, WHOLE_FILE, 10)
    assert part.count == 2


# WebDataset tars


def write_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def samples_of(members: Iterable[tuple[str, bytes]], count: int = 1000) -> list[Samples]:
    stream = stream_of(write_tar(members), "a.tar")
    contents = list(cut_file(stream, CORPUS, WHOLE_FILE, count))
    assert all(isinstance(content, Samples) for content in contents)
    return contents


def test_samples_contain_the_members_of_a_pair() -> None:
    members = [
        ("x/0.jpg", b"\0" * (MAX_LINE_BYTES + 1)),
        ("x/0.EN.txt", b"e0"),
        ("x/0.de.txt", b"d0"),
        ("x/0.json", b"{}"),
        ("1.de.txt", b"d1"),
        ("1.cls", b"1"),
        ("1.en.txt", b"e1"),
        ("2.0.en.txt", b"passed over: its suffix is 0.en.txt"),
        ("3.en.txt", b"e3"),
        ("3.de.txt", b"d3"),
    ]
    first, second = samples_of(members, count=2)
    assert first.samples == (CorpusSample("x/0", (b"e0", b"d0")), CorpusSample("1", (b"e1", b"d1")))
    assert second.samples == (CorpusSample("3", (b"e3", b"d3")),)


def test_samples_have_a_limit_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "PART_BYTES", 10)
    members = [(f"{i}.{side}.txt", b"1234") for i in range(4) for side in ("en", "de")]
    assert [part.count for part in samples_of(members)] == [2, 2]


GOOD = [("0.en.txt", b"e"), ("0.de.txt", b"d")]
ONE = ("7.en.txt", b"e")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([ONE], r"sample '7': expected de.txt, en.txt once .* found en.txt"),
        ([ONE, *GOOD, ("7.de.txt", b"d")], r"sample '7': .*found en.txt"),
        ([*GOOD, ("1.en.txt", b""), ("1.de.txt", b""), *GOOD], "sample '0': .* second sample"),
        ([*GOOD, *GOOD], "sample '0': the member en.txt occurs twice"),
        (
            [("7.en.txt", b"x" * (MAX_LINE_BYTES + 1))],
            "7.en.txt.: expected at most 1,048,576 bytes .* found 1,048,577",
        ),
        ([*GOOD, ("../7.en.txt", b"")], r"a\.tar .*\.\./7\.en\.txt"),
        ([*GOOD, ("7.pickle", b"")], r"a\.tar .*7\.pickle"),
    ],
)
def test_invalid_samples_are_reported(members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        samples_of(members)


SCORED = PairCorpusConfig(
    files=("a.tar",),
    columns=PairColumns(source="en.txt", target="de.txt", score="s"),
    min_score=0.0,
)


def cut_scored(score: bytes, samples: int) -> list[Samples]:
    members = [
        (f"{number}.{suffix}", data)
        for number in range(samples)
        for suffix, data in (("en.txt", b"e"), ("de.txt", b"d"), ("s", score))
    ]
    return list(cut_file(stream_of(write_tar(members), "a.tar"), SCORED, WHOLE_FILE, 1000))


def test_scores_and_keys_count_towards_the_bytes_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "PART_BYTES", 10)
    assert [part.count for part in cut_scored(b"0.12", 4)] == [2, 2]  # with a key of 1 byte


def test_a_score_that_is_too_long_is_refused() -> None:
    message = r"'0\.s': expected at most 1,024 bytes .* score, found 1,025\. Remove the sample"
    with pytest.raises(CorpusError, match=message):
        cut_scored(b"0" * 1025, 1)


def test_only_digests_of_keys_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "PART_BYTES", 100_000)
    samples = [
        pax((b"path", b"%04d" % number + b"k" * 4000 + b"." + side)) + entry(b"x", b"")
        for number in range(4000)
        for side in (b"en.txt", b"de.txt")
    ]
    stream = stream_of(b"".join([*samples, ZEROS]))
    with memory.at_most(5_000_000):  # the keys alone have 16 MB
        assert sum(part.count for part in cut_file(stream, CORPUS, WHOLE_FILE, 1000)) == 4000


def test_the_number_of_samples_in_an_archive_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "SAMPLES", replace(cutting.SAMPLES, limit=3))
    cut_scored(b"1", 3)
    message = r"a\.tar, sample '3': expected at most 3 samples .* found 4\. Split the archive"
    with pytest.raises(CorpusError, match=message):
        cut_scored(b"1", 4)


def test_the_error_names_a_truncated_archive() -> None:
    data = write_tar(GOOD)[:1300]
    with pytest.raises(CorpusError, match=r"a\.tar .*truncated"):
        list(cut_file(stream_of(data, "a.tar"), CORPUS, WHOLE_FILE, 10))


def test_an_archive_of_the_tar_command_is_read(tmp_path: Path) -> None:
    for name, data in GOOD:
        (tmp_path / name).write_bytes(data)
    subprocess.run(["tar", "-cf", "a.tar", "0.en.txt", "0.de.txt"], cwd=tmp_path, check=True)
    stream = stream_of((tmp_path / "a.tar").read_bytes())
    (part,) = cut_file(stream, CORPUS, WHOLE_FILE, 10)
    assert part == Samples("a", (CorpusSample("0", (b"e", b"d")),))


def test_long_partners_of_short_lines_end_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "PART_BYTES", 1_000_000)
    sources = reader_of(b"x\n" * 1000)
    targets = reader_of((b"y" * 10_000 + b"\n") * 1000)
    parts = list(cut_aligned([sources, targets], 20_000))
    assert sum(part.count for part in parts) == 1000
    assert max(len(part.sides[1].data) for part in parts) < 2_000_000


def test_a_byte_order_mark_is_not_part_of_the_text() -> None:
    reader = reader_of("\ufeffa\n\ufeffb\n".encode())
    assert reader.take(5).decode() == ["a", "\ufeffb"]
