"""Read corpora in every format, compression and place, and refuse every kind of damage."""

import gzip
import hashlib
import io
import itertools
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from backports import zstd
from support.files.faulty_server import FaultyServer
from support.quality.memory import measured_peak

from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.corpora import corpus as corpus_module
from data_pipeline.corpora.corpus import CorpusReader, read_whole
from data_pipeline.corpora.formats import Example, parse
from data_pipeline.errors import CorpusError
from data_pipeline.storage.phrasebook import phrasebook_pairs

SOURCES = ["un chat", "deux\u2028chats", "", "été"] + [f"phrase {i} é" for i in range(200)]
TARGETS = ["a cat", "two cats", "none", "summer"] + [f"sentence {i}" for i in range(200)]
PAIRS = list(zip(SOURCES, TARGETS, strict=True))
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}


def text_of(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def tar_of(pairs: list[tuple[str, str]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, pair in enumerate(pairs):
            for suffix, sentence in zip(("fr.txt", "en.txt"), pair, strict=True):
                info = tarfile.TarInfo(f"{number:06}.{suffix}")
                info.size = len(sentence.encode())
                tar.addfile(info, io.BytesIO(sentence.encode()))
    return buffer.getvalue()


def tsv_of(pairs: list[tuple[str, str]]) -> bytes:
    return text_of(["id\ten\tfr", *(f"{i}\t{pair[1]}\t{pair[0]}" for i, pair in enumerate(pairs))])


def jsonl_of(pairs: list[tuple[str, str]]) -> bytes:
    return text_of([json.dumps({"t": {"fr": fr, "en": en}}) for fr, en in pairs])


# By format: the content of files, and the columns in the recipe.
FORMATS: dict[str, tuple[Callable[[list[tuple[str, str]]], bytes], dict[str, str]]] = {
    "tsv": (tsv_of, {"source": "fr", "target": "en"}),
    "jsonl": (jsonl_of, {"source": "t.fr", "target": "t.en"}),
    "tar": (tar_of, {"source": "fr.txt", "target": "en.txt"}),
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reader_of(corpus: PairCorpusConfig, mirror: str | None = None) -> CorpusReader:
    return CorpusReader(corpus, mirror=mirror, cache=Path("/none"))


def read(reader: CorpusReader, pairs_per_chunk: int = 7) -> list[tuple[str, str]]:
    """Return all pairs, after checks of the chunks' positions and of the progress."""
    pairs: list[Example] = []
    read_before = 0
    for chunk in reader.chunks(pairs_per_chunk):
        assert chunk.first == len(pairs)
        assert 0 < chunk.content.count <= pairs_per_chunk
        assert read_before <= reader.bytes_read <= reader.total_bytes
        read_before = reader.bytes_read
        pairs += parse(chunk)
    assert reader.bytes_read == reader.total_bytes
    return [(pair.texts[0], pair.texts[1]) for pair in pairs]


def aligned(folder: Path, source: bytes, target: bytes, **settings: str) -> PairCorpusConfig:
    (folder / "a.fr").write_bytes(source)
    (folder / "a.en").write_bytes(target)
    return PairCorpusConfig(source=str(folder / "a.fr"), target=str(folder / "a.en"), **settings)


# Every format and compression


@pytest.mark.parametrize("suffixes", list(itertools.product(COMPRESSORS, repeat=2)))
def test_compressed_aligned_files_are_read(suffixes: tuple[str, str], tmp_path: Path) -> None:
    names = [tmp_path / "a.fr", tmp_path / "a.en"]
    contents = [text_of(SOURCES), text_of(TARGETS)]
    for name, suffix, content in zip(names, suffixes, contents, strict=True):
        name.write_bytes(COMPRESSORS[suffix](content))
    corpus = PairCorpusConfig(
        source=str(names[0]),
        target=str(names[1]),
        source_sha256=sha256(contents[0]),
        target_sha256=sha256(contents[1]),
    )
    reader = reader_of(corpus)
    assert reader.total_bytes == sum(name.stat().st_size for name in names)
    assert read(reader) == PAIRS
    assert reader.sha256s == corpus.sha256s


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("file_format", FORMATS)
def test_files_with_both_sides_are_read(file_format: str, suffix: str, tmp_path: Path) -> None:
    write, columns = FORMATS[file_format]
    contents = [write(PAIRS[:60]), write(PAIRS[60:]), write(PAIRS[:1])]
    for number, content in enumerate(contents):
        path = tmp_path / f"a-{number}.{file_format}{suffix}"
        path.write_bytes(COMPRESSORS[suffix](content))
    corpus = PairCorpusConfig(
        files=(f"{tmp_path}/a-{{0..1}}.{file_format}{suffix}", str(path)),
        files_sha256=tuple(map(sha256, contents)),
        columns=columns,
    )
    reader = reader_of(corpus)
    assert read(reader) == PAIRS + PAIRS[:1]
    assert reader.sha256s == corpus.sha256s


@pytest.mark.parametrize("pairs_per_chunk", [1, 2, 203, 204, 1000])
def test_chunks_of_any_size_give_the_same_pairs(pairs_per_chunk: int, tmp_path: Path) -> None:
    corpus = aligned(tmp_path, text_of(SOURCES), text_of(TARGETS))
    assert read(reader_of(corpus), pairs_per_chunk) == PAIRS


def test_the_builtin_phrasebook_is_read() -> None:
    corpus = PairCorpusConfig(
        source="builtin:phrasebook/test.fr", target="builtin:phrasebook/test.en"
    )
    assert read(reader_of(corpus, mirror="/not/used"), 100) == phrasebook_pairs("test")


def test_all_line_ends_are_read_and_the_last_line_end_may_be_missing(tmp_path: Path) -> None:
    corpus = aligned(tmp_path, b"one\r\ntwo \x0b \xc2\x85 words", b"\xe2\x80\xa8x\n\r\n")
    assert read(reader_of(corpus)) == [("one", "\u2028x"), ("two \x0b \x85 words", "")]


# Places


def test_a_mirror_replaces_a_url_and_hashes_are_still_checked(tmp_path: Path) -> None:
    (tmp_path / "a.fr.zst").write_bytes(zstd.compress(text_of(SOURCES)))
    (tmp_path / "a.en").write_bytes(text_of(TARGETS))
    settings = {"source": "https://nowhere.invalid/some/a.fr.gz", "target": "/no/folder/a.en.xz"}
    corpus = PairCorpusConfig(**settings, source_sha256=sha256(text_of(SOURCES)))
    assert read(reader_of(corpus, mirror=str(tmp_path))) == PAIRS
    corpus = PairCorpusConfig(**settings, source_sha256="0" * 64)
    with pytest.raises(CorpusError, match=r"/some/a\.fr\.gz has the wrong content"):
        read(reader_of(corpus, mirror=str(tmp_path)))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Yield a server that has the corpus in two JSON lines files."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    for number, pairs in enumerate((PAIRS[:60], PAIRS[60:])):
        (tmp_path / "served" / f"{number}.jsonl").write_bytes(jsonl_of(pairs))
    with FaultyServer(tmp_path / "served") as server:
        yield server


def test_remote_files_are_downloaded_once_before_they_are_read(
    server: FaultyServer, tmp_path: Path
) -> None:
    corpus = PairCorpusConfig(
        files=(f"{server.url}/{{0..1}}.jsonl",),
        files_sha256=(sha256(jsonl_of(PAIRS[:60])), sha256(jsonl_of(PAIRS[60:]))),
        columns=FORMATS["jsonl"][1],
    )
    readers = [CorpusReader(corpus, mirror=None, cache=tmp_path / "cache") for _ in range(2)]
    assert server.requests == {"0.jsonl": 1, "1.jsonl": 1}
    assert [read(reader) for reader in readers] == [PAIRS, PAIRS]
    assert server.requests == {"0.jsonl": 1, "1.jsonl": 1}


# Every kind of damage


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n", r"a\.fr has 3 lines and .*a\.en has 2: line 3 of .*a\.fr has no partner"),
        (b"1\n" * 1000, r"a\.fr has 3 .* has 1,000: line 4 of .*a\.en has no partner"),
        (b"one\ntwo\nthr\xffee\n", r"a\.en, line 3: the byte 0xff, number 4 .* not UTF-8"),
        (b"", r"a\.en has no text: it has 0 lines"),
        (b" \n\n\t\n", r"a\.en has no text: it has 3 lines"),
        (gzip.compress(b"1\n2\n3\n")[:-9], r"a\.en is a damaged gzip file"),
        (b"x" * 3_000_000, r"a\.en, line 1: the line is longer than 1,048,576 bytes"),
    ],
)
@pytest.mark.parametrize("pairs_per_chunk", [2, 1000])
def test_damaged_text_is_reported_with_its_line(
    pairs_per_chunk: int, content: bytes, message: str, tmp_path: Path
) -> None:
    corpus = aligned(tmp_path, b"un\ndeux\ntrois\n", content)
    with pytest.raises(CorpusError, match=message):
        read(reader_of(corpus), pairs_per_chunk)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_wrong_hash_is_reported_with_file_and_hashes(file_format: str, tmp_path: Path) -> None:
    write, columns = FORMATS[file_format]
    for number in range(2):
        (tmp_path / f"{number}.{file_format}").write_bytes(write(PAIRS))
    found = sha256(write(PAIRS))
    corpus = PairCorpusConfig(
        files=(f"{tmp_path}/{{0..1}}.{file_format}",),
        files_sha256=(found, "0" * 64),
        columns=columns,
    )
    message = f"1.{file_format} has the wrong content: .* sha256 {'0' * 64}, .* has {found}"
    with pytest.raises(CorpusError, match=message):
        read(reader_of(corpus))


def test_a_wrong_hash_is_reported_before_errors_that_it_explains(tmp_path: Path) -> None:
    corpus = aligned(tmp_path, b"1\n2\n", b"1\n", target_sha256="0" * 64)
    with pytest.raises(CorpusError, match=r"a\.en has the wrong content"):
        read(reader_of(corpus))


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_empty_corpus_is_refused_but_an_empty_file_is_read(
    file_format: str, tmp_path: Path
) -> None:
    write, columns = FORMATS[file_format]
    (tmp_path / "empty").write_bytes(write([]))
    (tmp_path / "full").write_bytes(write(PAIRS))
    settings = {"format": "webdataset" if file_format == "tar" else file_format, "columns": columns}
    corpus = PairCorpusConfig(files=(f"{tmp_path}/{{empty,full,empty}}",), **settings)
    assert read(reader_of(corpus)) == PAIRS
    with pytest.raises(CorpusError, match="/empty: expected at least one pair, found none"):
        read(reader_of(PairCorpusConfig(files=(f"{tmp_path}/empty",), **settings)))


def test_line_numbers_count_the_header_and_restart_in_each_file(tmp_path: Path) -> None:
    (tmp_path / "0.tsv").write_bytes(tsv_of(PAIRS))
    (tmp_path / "1.tsv").write_bytes(tsv_of(PAIRS[:50]) + b"short\n")
    corpus = PairCorpusConfig(files=(f"{tmp_path}/{{0,1}}.tsv",), columns=FORMATS["tsv"][1])
    with pytest.raises(CorpusError):
        read(reader_of(corpus))


def test_a_missing_file_is_reported_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(CorpusError):
        reader_of(
            PairCorpusConfig(source="builtin:phrasebook/test.fr", target=f"{tmp_path}/none.en")
        )


def test_reading_can_stop_early_and_closes_the_files(tmp_path: Path) -> None:
    reader = reader_of(aligned(tmp_path, text_of(SOURCES), text_of(TARGETS)))
    chunks = reader.chunks(2)
    assert next(chunks).first == 0
    chunks.close()  # a file left open would be an error
    assert reader.sha256s == ()


# Held-out sets


def test_read_whole_returns_all_pairs_and_hashes(tmp_path: Path) -> None:
    text = read_whole(
        aligned(tmp_path, text_of(SOURCES), text_of(TARGETS)), mirror=None, cache=tmp_path
    )
    assert text.texts == tuple(PAIRS)
    assert text.sha256s == (sha256(text_of(SOURCES)), sha256(text_of(TARGETS)))


@pytest.mark.parametrize("budget", ["HELD_OUT_EXAMPLES", "HELD_OUT_CHARACTERS"])
def test_a_held_out_set_above_a_limit_is_refused(
    budget: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, budget, replace(getattr(corpus_module, budget), limit=100))
    corpus = aligned(tmp_path, text_of(SOURCES), text_of(TARGETS))
    with pytest.raises(CorpusError, match=r"a\.en: expected at most 100 .* found [\d,]+\. Use few"):
        read_whole(corpus, mirror=None, cache=tmp_path)


# Memory


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for million_bytes in (5, 50):
        block = gzip.compress(b"a sentence of some words\n" * 40_000, 1)  # a million bytes
        (tmp_path / "a.gz").write_bytes(block * million_bytes)
        corpus = PairCorpusConfig(source=str(tmp_path / "a.gz"), target=str(tmp_path / "a.gz"))
        reader = reader_of(corpus)
        with measured_peak() as peak:
            pairs = sum(chunk.content.count for chunk in reader.chunks(5000))
        peaks.append(peak.bytes)
        assert pairs == 40_000 * million_bytes
    assert peaks[1] < 1.1 * peaks[0] < 30_000_000
