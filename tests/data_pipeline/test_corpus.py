"""Corpora from every kind of place, and every way in which they can be wrong."""

import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.config import CorpusConfig
from data_pipeline.corpus import read_corpus
from data_pipeline.errors import CorpusError
from data_pipeline.phrasebook import generate

SOURCES, TARGETS = ["un chat", "deux\u2028chats", "été"], ["a cat", "two cats", "summer"]
SOURCE_BYTES = "".join(line + "\n" for line in SOURCES).encode()
TARGET_BYTES = "".join(line + "\n" for line in TARGETS).encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.fr").write_bytes(SOURCE_BYTES)
    (tmp_path / "a.en.gz").write_bytes(gzip.compress(TARGET_BYTES))
    return tmp_path


def test_plain_and_gzipped_files(folder: Path) -> None:
    corpus = CorpusConfig(
        source=str(folder / "a.fr"),
        target=str(folder / "a.en.gz"),
        source_sha256=sha256(SOURCE_BYTES),
        target_sha256=sha256(TARGET_BYTES),
    )
    text = read_corpus(corpus, mirror=None)
    assert (text.sources, text.targets) == (SOURCES, TARGETS)
    assert (text.source_sha256, text.target_sha256) == (sha256(SOURCE_BYTES), sha256(TARGET_BYTES))


def test_line_ends_of_other_systems_and_a_missing_last_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\r\ntwo \x0b \xc2\x85 words")
    corpus = CorpusConfig(source=str(tmp_path / "a"), target=str(tmp_path / "a"))
    assert read_corpus(corpus, None).sources == ["one", "two \x0b \x85 words"]


def test_mirror_stands_in_for_paths_and_urls(folder: Path) -> None:
    corpus = CorpusConfig(
        source="https://nowhere.invalid/some/a.fr.gz",
        target="/no/such/folder/a.en",
        source_sha256=sha256(SOURCE_BYTES),
    )
    text = read_corpus(corpus, mirror=str(folder))
    assert (text.sources, text.targets) == (SOURCES, TARGETS)


def test_mirror_without_the_file_names_what_it_looked_for(folder: Path) -> None:
    corpus = CorpusConfig(source="/x/b.fr.gz", target="/x/a.en")
    with pytest.raises(CorpusError, match=r"has neither b\.fr nor b\.fr\.gz"):
        read_corpus(corpus, mirror=str(folder))


def test_builtin_phrasebook() -> None:
    corpus = CorpusConfig(source="builtin:phrasebook/test.fr", target="builtin:phrasebook/test.en")
    text = read_corpus(corpus, mirror="/not/used")
    assert list(zip(text.sources, text.targets, strict=True)) == generate("test")


def test_unknown_builtin_lists_the_known() -> None:
    corpus = CorpusConfig(source="builtin:phrasebook/test.de", target="builtin:phrasebook/test.en")
    with pytest.raises(CorpusError, match=r"no built-in corpus .*test\.de\. .*train\.fr"):
        read_corpus(corpus, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ntwo\n", r"a\.fr has 3 lines and .*/bad has 2: line 3 of .*a\.fr has no partner"),
        (b"1\n2\n3\n4\n", r"line 4 of .*/bad has no partner"),
        (b"one\ntwo\nthr\xffee\n", r"/bad, line 3: the byte 0xff at position 11 .* not UTF-8"),
        (b"", r"/bad is empty: 0 lines"),
        (b" \n\n\t\n", r"/bad is empty: 3 lines and none with text"),
        (gzip.compress(TARGET_BYTES)[:-12], r"/bad is a damaged gzip file"),
    ],
)
def test_bad_text_is_named_with_its_line(folder: Path, content: bytes, message: str) -> None:
    (folder / "bad").write_bytes(content)
    corpus = CorpusConfig(source=str(folder / "a.fr"), target=str(folder / "bad"))
    with pytest.raises(CorpusError, match=message):
        read_corpus(corpus, None)


def test_missing_file_is_named_with_the_remedy(folder: Path) -> None:
    corpus = CorpusConfig(source=str(folder / "a.fr"), target=str(folder / "none"))
    with pytest.raises(CorpusError, match=r"/none \(No such file.*data\.mirror"):
        read_corpus(corpus, None)


def test_wrong_hash_gives_both(folder: Path) -> None:
    corpus = CorpusConfig(
        source=str(folder / "a.fr"), target=str(folder / "a.en.gz"), target_sha256="0" * 64
    )
    with pytest.raises(CorpusError, match=f"sha256 {'0' * 64}.*has {sha256(TARGET_BYTES)}"):
        read_corpus(corpus, None)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, *_: object) -> None:
        self.requests.append(self.path)


@pytest.fixture
def server(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, list[str]]]:
    """Address of a server of the folder, and the paths it was asked for."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TRANSLOOM_CACHE", str(tmp_path / "cache"))
    requests: list[str] = []
    handler = type("Handler", (QuietHandler,), {"requests": requests})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
    ) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", requests
        httpd.shutdown()
        thread.join()


def test_url_is_fetched_once_and_a_damaged_cache_is_noticed(
    folder: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    address, requests = server
    corpus = CorpusConfig(
        source=str(folder / "a.fr"),
        target=f"{address}/a.en.gz",
        target_sha256=sha256(TARGET_BYTES),
    )
    assert read_corpus(corpus, None).targets == TARGETS
    assert read_corpus(corpus, None).targets == TARGETS
    assert requests == ["/a.en.gz"]
    cached = tmp_path / "cache" / "corpora" / sha256(TARGET_BYTES)
    assert cached.read_bytes() == TARGET_BYTES
    cached.write_bytes(b"other")
    assert read_corpus(corpus, None).targets == TARGETS
    assert len(requests) == 2


def test_url_with_other_text_is_refused_and_not_cached(
    folder: Path, tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    address, _ = server
    corpus = CorpusConfig(
        source=str(folder / "a.fr"), target=f"{address}/a.en.gz", target_sha256="0" * 64
    )
    with pytest.raises(CorpusError, match="has the wrong text"):
        read_corpus(corpus, None)
    assert not (tmp_path / "cache").exists()


def test_url_that_is_not_there(folder: Path, server: tuple[str, list[str]]) -> None:
    address, _ = server
    corpus = CorpusConfig(
        source=str(folder / "a.fr"), target=f"{address}/none", target_sha256="0" * 64
    )
    with pytest.raises(CorpusError, match=r"/none cannot be downloaded \(HTTP Error 404"):
        read_corpus(corpus, None)
