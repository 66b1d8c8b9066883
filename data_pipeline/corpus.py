"""Corpora: from a location in the recipe to aligned sentences in memory.

    location ──mirror, cache or download──▶ bytes ──gunzip──▶ sha256 ──▶ UTF-8 ──▶ lines

Lines end at \\n alone: other characters that Unicode calls line ends occur inside sentences, and
splitting there would shift the alignment of everything that follows.
"""

import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from data_pipeline.config import CorpusConfig
from data_pipeline.errors import CorpusError
from data_pipeline.phrasebook import generate

BUILTIN = "builtin:"
PHRASEBOOK = {
    f"builtin:phrasebook/{split}.{language}": (split, column)
    for split in ("train", "validation", "test")
    for column, language in enumerate(("fr", "en"))
}
DOWNLOAD_TIMEOUT_SECONDS = 60
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class ParallelText:
    """Aligned sentences: `sources[i]` and `targets[i]` are translations of each other."""

    sources: list[str]
    targets: list[str]
    source_sha256: str  # of the decompressed text as it was read
    target_sha256: str


def read_corpus(corpus: CorpusConfig, mirror: str | None) -> ParallelText:
    """Reads both sides. Raises CorpusError, naming file and line, for whatever is wrong."""
    sources, source_sha256 = _read_side(corpus.source, corpus.source_sha256, mirror)
    targets, target_sha256 = _read_side(corpus.target, corpus.target_sha256, mirror)
    if len(sources) != len(targets):
        longer = corpus.source if len(sources) > len(targets) else corpus.target
        raise CorpusError(
            f"{corpus.source} has {len(sources):,} lines and {corpus.target} has "
            f"{len(targets):,}: line {min(len(sources), len(targets)) + 1:,} of {longer} has no "
            "partner. The n-th lines of both files must be translations of each other; give "
            "aligned files."
        )
    return ParallelText(sources, targets, source_sha256, target_sha256)


def _read_side(location: str, sha256: str | None, mirror: str | None) -> tuple[list[str], str]:
    data = _read_location(location, sha256, mirror)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise CorpusError(
            f"{location} has the wrong text: the recipe has sha256 {sha256}, and what was read "
            f"({len(data):,} bytes decompressed) has {found}. Get the file that the recipe means, "
            "or correct the hash."
        )
    return _split_lines(data, location), found


def _split_lines(data: bytes, location: str) -> list[str]:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{location}, line {line:,}: the byte 0x{data[error.start]:02x} at position "
            f"{error.start:,} of the file is not UTF-8 ({error.reason}). Convert the file, for "
            "example with iconv, or remove the line from both sides."
        ) from error
    lines = text.removesuffix("\n").split("\n") if text else []
    if not any(line.strip() for line in lines):
        raise CorpusError(
            f"{location} is empty: {len(lines)} lines and none with text on it, at least one is "
            "needed. Give a file with one sentence a line."
        )
    return [line.removesuffix("\r") for line in lines]


def _read_location(location: str, sha256: str | None, mirror: str | None) -> bytes:
    if location.startswith(BUILTIN):
        return _read_builtin(location)
    if mirror is not None:
        return _read_file(_find_in_mirror(location, Path(mirror)), location)
    if location.startswith(("http://", "https://")):
        assert sha256 is not None, "the config requires a hash for URLs"
        return _read_cached(location, sha256)
    return _read_file(Path(location), location)


def _read_builtin(location: str) -> bytes:
    if location not in PHRASEBOOK:
        raise CorpusError(
            f"There is no built-in corpus {location}. There are: {', '.join(PHRASEBOOK)}."
        )
    split, column = PHRASEBOOK[location]
    return "".join(pair[column] + "\n" for pair in generate(split)).encode()


def _find_in_mirror(location: str, mirror: Path) -> Path:
    name = unquote(Path(urlsplit(location).path).name)
    plain = name.removesuffix(".gz")
    for candidate in (name, plain, plain + ".gz"):
        if (mirror / candidate).is_file():
            return mirror / candidate
    raise CorpusError(
        f"The mirror {mirror} has neither {plain} nor {plain}.gz, which {location} asks for. Put "
        "the file there, or leave out data.mirror to read from the location itself."
    )


def _read_file(path: Path, location: str) -> bytes:
    try:
        return _decompress(path.read_bytes(), location)
    except OSError as error:
        raise CorpusError(
            f"The corpus {location} cannot be read from {path.absolute()} ({error.strerror}). "
            "Correct the path in the recipe, or name the folder that has the file with "
            "data.mirror=FOLDER."
        ) from error


def _decompress(data: bytes, location: str) -> bytes:
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(
            f"{location} is a damaged gzip file of {len(data):,} bytes ({error}). Get it again."
        ) from error


def cache_folder() -> Path:
    """$TRANSLOOM_CACHE, or ~/.cache/transloom."""
    default = Path.home() / ".cache" / "transloom"
    return Path(os.environ.get("TRANSLOOM_CACHE") or default) / "corpora"


def _read_cached(url: str, sha256: str) -> bytes:
    """The decompressed text, from the cache if it is there and whole."""
    path = cache_folder() / sha256
    if path.is_file():
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
    data = _decompress(_download(url), url)
    if hashlib.sha256(data).hexdigest() == sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(path)
    return data


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
            data: bytes = response.read()
            return data
    except (OSError, http.client.HTTPException) as error:
        raise CorpusError(
            f"{url} cannot be downloaded ({error}). Check the address and the network, or put the "
            "file into a folder and name it with data.mirror=FOLDER."
        ) from error
