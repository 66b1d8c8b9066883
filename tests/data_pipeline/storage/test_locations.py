"""Locations: the same bytes from every place and compression, or an error."""

import bz2
import gzip
import hashlib
import io
import lzma
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from support.files.faulty_server import Fault, FaultyServer
from support.quality.memory import at_most

from data_pipeline.errors import CorpusError
from data_pipeline.storage import compression, remote
from data_pipeline.storage.locations import cache_folder, open_location
from data_pipeline.storage.phrasebook import phrasebook_pairs
from foundation.errors import LocationError

rng = random.Random(3)
TEXT = b"".join(b"%d lines %x\n" % (i, rng.randrange(2**60)) for i in range(20_000))
SHA256 = hashlib.sha256(TEXT).hexdigest()
CHECKED = {zstd.CompressionParameter.checksum_flag: 1}  # as the zstd command does
COMPRESSORS = {
    "": lambda data: data,
    ".gz": lambda data: gzip.compress(data, 1),
    ".bz2": lambda data: bz2.compress(data, 1),
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".zst": lambda data: zstd.compress(data, options=CHECKED),
}
COMPRESSED = {suffix: compress(TEXT) for suffix, compress in COMPRESSORS.items()}
NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}


def read(location: str | Path, cache: Path = Path("/none"), **options: str | None) -> bytes:
    with open_location(str(location), cache=cache, **{"mirror": None, **options}) as stream:
        return stream.read()


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_the_compression_is_detected_from_the_content(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "misnamed.txt").write_bytes(COMPRESSED[suffix])
    with open_location(str(tmp_path / "misnamed.txt"), mirror=None, cache=tmp_path) as stream:
        assert (stream.bytes_read, stream.total_bytes) == (0, len(COMPRESSED[suffix]))
        assert stream.read(1000) == TEXT[:1000]
        assert stream.sha256 == hashlib.sha256(TEXT[:1000]).hexdigest()
        assert stream.readline() == TEXT[1000 : TEXT.index(b"\n", 1000) + 1]
        stream.read(len(TEXT))
        assert stream.read(1) == b""
        assert stream.sha256 == SHA256
        assert stream.bytes_read == stream.total_bytes


@pytest.mark.parametrize("suffix", [".xz", ".zst"])
def test_each_of_many_small_frames_is_copied_only_a_few_times(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame is not copied once for each earlier frame."""
    fed = []

    class Watched:
        def __init__(self, decompressor: Any) -> None:
            self._decompressor = decompressor

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decompressor, name)

        def decompress(self, data: bytes, max_length: int) -> bytes:
            fed.append(len(data))
            found: bytes = self._decompressor.decompress(data, max_length)
            return found

    for name in ("_new_xz", "_new_zstd"):
        make = getattr(compression, name)
        monkeypatch.setattr(compression, name, lambda make=make: Watched(make()))
    frames = 3_000
    (tmp_path / "a").write_bytes(COMPRESSORS[suffix](b"a\n") * frames)
    assert read(tmp_path / "a") == b"a\n" * frames
    assert len(fed) >= frames
    assert sum(fed) <= frames * compression.FIRST_FEED_BYTES


@pytest.mark.parametrize("suffix", NAMES)
def test_all_frames_are_read(suffix: str, tmp_path: Path) -> None:
    compress = COMPRESSORS[suffix]
    (tmp_path / "a").write_bytes(compress(TEXT) + compress(b"") + compress(b"more"))
    assert read(tmp_path / "a") == TEXT + b"more"


@pytest.mark.parametrize("suffix", NAMES)
@pytest.mark.parametrize(
    "damage", ["magic alone", "first half", "last byte", "second frame's half", "bit", "rubbish"]
)
def test_damaged_files_are_reported(suffix: str, damage: str, tmp_path: Path) -> None:
    data = COMPRESSED[suffix]
    middle = len(data) // 2
    damaged = {
        "magic alone": data[:6],
        "first half": data[:middle],
        "last byte": data[:-1],
        "second frame's half": data + data[:middle],
        "bit": data + data[:middle] + bytes([data[middle] ^ 8]) + data[middle + 1 :],
        "rubbish": data + b"rubbish",
    }[damage]
    (tmp_path / "a").write_bytes(damaged)
    with pytest.raises(CorpusError, match=rf"/a is a damaged {NAMES[suffix]} file of .* bytes"):
        read(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"x", b"\x1f", b"\n"])
def test_tiny_files_are_read_as_plain_text(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert read(tmp_path / "a") == content


def test_file_urls_may_be_quoted(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes(TEXT)
    assert read(f"file://{tmp_path}/a%20b.txt") == TEXT


def test_a_missing_file_is_reported_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"/none cannot be read from /.*\(No such file.*data"):
        read(tmp_path / "none")
    with pytest.raises(CorpusError, match=r"it is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("asked", ["/some/where/a.fr", "https://host.invalid/x/a.fr.gz?raw=1"])
@pytest.mark.parametrize("there", COMPRESSED)
def test_a_mirror_replaces_paths_and_urls(asked: str, there: str, tmp_path: Path) -> None:
    (tmp_path / f"a.fr{there}").write_bytes(COMPRESSED[there])
    assert read(asked, mirror=str(tmp_path)) == TEXT


def test_a_mirror_without_the_file_names_the_expected_names(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"has neither b\.fr nor b\.fr\{\.gz,\.bz2,\.xz,\.zst\}"):
        read("/x/b.fr.xz", mirror=str(tmp_path))


@pytest.mark.parametrize("scheme", ["https://host.invalid/", "/corpora/"])
@pytest.mark.parametrize(
    "name",
    ["..%2f..%2fsecret.txt", "%2e%2e%2fsecret.txt", "%2e%2e", "a%2fsecret.txt", "..%5csecret.txt"],
)
def test_a_relative_name_that_leaves_the_mirror_is_refused(
    scheme: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_bytes(TEXT)
    (tmp_path / "mirror" / "a").mkdir(parents=True)
    (tmp_path / "mirror" / "a" / "secret.txt").write_bytes(TEXT)
    with pytest.raises(LocationError, match="leads out of"):
        read(f"{scheme}{name}", mirror=str(tmp_path / "mirror"))


def test_an_absolute_name_that_leaves_the_mirror_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(TEXT)
    (tmp_path / "mirror").mkdir()
    name = str(tmp_path / "secret.txt").replace("/", "%2F")
    with pytest.raises(LocationError, match=r"leads out of"):
        read(f"https://host.invalid/{name}", mirror=str(tmp_path / "mirror"))


def test_the_builtin_phrasebook_needs_no_file() -> None:
    expected = "".join(english + "\n" for _, english in phrasebook_pairs("test")).encode()
    location = "builtin:phrasebook/test.en"
    assert read(location, mirror="/not/used") == expected
    with open_location(location, mirror=None, cache=Path("/none")) as stream:
        assert stream.total_bytes == len(expected)


def test_an_unknown_builtin_corpus_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CorpusError, match=r"no built-in corpus .*test\.de\. .*train\.fr"):
        read("builtin:phrasebook/test.de")


def test_verify_reads_the_rest_and_reports_both_hashes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(COMPRESSED[".gz"])
    with open_location(str(tmp_path / "a"), mirror=None, cache=tmp_path) as stream:
        stream.verify(SHA256)
        assert stream.bytes_read == stream.total_bytes
        with pytest.raises(CorpusError, match=f"sha256 {'0' * 64}.* has {SHA256}"):
            stream.verify("0" * 64)
    assert (tmp_path / "a").exists()


def test_the_recipe_or_environment_sets_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSLOOM_CACHE", "/var/cache")
    assert cache_folder("/mine") == Path("/mine")
    assert cache_folder(None) == Path("/var/cache")
    monkeypatch.delenv("TRANSLOOM_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "transloom"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """Yield a server that has TEXT as a.gz."""
    monkeypatch.setattr(remote, "RETRY_DELAYS_SECONDS", (0.001,))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.gz").write_bytes(COMPRESSED[".gz"])
    with FaultyServer(tmp_path / "served") as server:
        yield server


def test_a_url_is_fetched_once_and_then_cached(server: FaultyServer, tmp_path: Path) -> None:
    server.fail(Fault.INTERNAL_ERROR, on={1})
    for _ in range(2):
        assert read(f"{server.url}/a.gz", tmp_path / "cache", sha256=SHA256) == TEXT
    assert server.requests == {"a.gz": 2}
    assert [path.name for path in (tmp_path / "cache" / "corpora").iterdir()] == [SHA256]


@pytest.mark.parametrize("fault", [Fault.BIT_FLIP, Fault.SHORT])
def test_a_url_with_damaged_content_is_refused_and_not_cached(
    fault: Fault, server: FaultyServer, tmp_path: Path
) -> None:
    server.fail(fault)
    with pytest.raises(CorpusError, match=r"a\.gz is a damaged gzip file"):
        read(f"{server.url}/a.gz", tmp_path / "cache", sha256=SHA256)
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


def test_a_url_with_different_content_is_refused_and_not_cached(
    server: FaultyServer, tmp_path: Path
) -> None:
    with pytest.raises(CorpusError, match=f"a.gz has the wrong content.*{'0' * 64}.*{SHA256}"):
        read(f"{server.url}/a.gz", tmp_path / "cache", sha256="0" * 64)
    assert list((tmp_path / "cache" / "corpora").iterdir()) == []


@pytest.mark.parametrize(
    ("copy", "message"),
    [(b"other text", "wrong content"), (COMPRESSED[".gz"][:-9], "damaged gzip file")],
)
def test_a_damaged_cached_copy_is_removed_for_the_next_attempt(
    copy: bytes, message: str, server: FaultyServer, tmp_path: Path
) -> None:
    path = tmp_path / "cache" / "corpora" / SHA256
    path.parent.mkdir(parents=True)
    path.write_bytes(copy)
    options = {"mirror": None, "cache": tmp_path / "cache", "sha256": SHA256}
    with (
        open_location(f"{server.url}/a.gz", **options) as stream,
        pytest.raises(CorpusError, match=f"{message}.*The cached copy {path} was removed"),
    ):
        stream.verify(SHA256)
    assert server.requests == {}
    assert read(f"{server.url}/a.gz", tmp_path / "cache", sha256=SHA256) == TEXT


def test_a_cache_that_cannot_be_written_is_reported(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(CorpusError, match=r"cannot be written to .*cache/corpora .*data\.cache="):
        read(f"{server.url}/a.gz", tmp_path / "cache", sha256=SHA256)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_reading_takes_constant_memory(suffix: str, tmp_path: Path) -> None:
    block = bytes(1_000_000)  # compresses to a thousandth
    content = COMPRESSORS[suffix](block) * 50
    (tmp_path / "zeros").write_bytes(content)
    opened = open_location(str(tmp_path / "zeros"), mirror=None, cache=tmp_path)
    with opened as stream, at_most(8_000_000):
        size = sum(map(len, iter(lambda: stream.read(100_000), b"")))
    assert size == 50_000_000


def test_reads_of_any_size_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(COMPRESSED[".zst"])
    found = io.BytesIO()
    with open_location(str(tmp_path / "a"), mirror=None, cache=tmp_path) as stream:
        while data := stream.read(rng.randint(1, 5000)):
            found.write(data)
    assert found.getvalue() == TEXT


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"PK\x03\x04..", "zip"),
        (b"\x1f\x9d\x90", "compress"),
        (lzma.compress(TEXT, format=lzma.FORMAT_ALONE), "lzma"),
    ],
)
def test_compressions_that_are_not_read_are_reported(
    tmp_path: Path, start: bytes, name: str
) -> None:
    (tmp_path / "a").write_bytes(start)
    with pytest.raises(CorpusError, match=f"is a {name} file"):
        open_location(str(tmp_path / "a"), mirror=None, cache=tmp_path)


def zstd_skippable(data: bytes) -> bytes:
    return b"\x50\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


@pytest.mark.parametrize(
    ("suffix", "before", "between", "after"),
    [
        (".xz", b"", bytes(4), b""),
        (".xz", b"", bytes(8), bytes(4)),
        (".xz", b"", b"", bytes(3 * compression.BLOCK_BYTES)),
        (".gz", b"", bytes(7), bytes(512)),
        (".zst", zstd_skippable(b"x"), zstd_skippable(bytes(9)), zstd_skippable(b"")),
        (".bz2", b"", b"", bz2.compress(b"")),
    ],
)
def test_padding_and_several_frames_are_read(
    suffix: str, before: bytes, between: bytes, after: bytes, tmp_path: Path
) -> None:
    halves = [COMPRESSORS[suffix](part) for part in (TEXT[:5000], TEXT[5000:])]
    (tmp_path / "a").write_bytes(before + halves[0] + between + halves[1] + after)
    assert read(tmp_path / "a") == TEXT


@pytest.mark.parametrize("after", [bytes(3), bytes(4) + b"x", bytes(4) + COMPRESSED[".gz"]])
def test_padding_that_the_xz_format_forbids_is_damage(after: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(COMPRESSED[".xz"] + after)
    with pytest.raises(CorpusError, match="a is a damaged xz file"):
        read(tmp_path / "a")


def test_a_name_in_a_different_unicode_form_is_found(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "donne\u0301es")).write_bytes(TEXT)
    composed = unicodedata.normalize("NFC", "donne\u0301es")
    assert read(tmp_path / composed) == TEXT
    assert read(f"/elsewhere/{composed}", mirror=str(tmp_path)) == TEXT
