"""Samples of a shard, written and read by webdataset; this module checks what webdataset reads.

    samples ──TarWriter──▶ bytes
    bytes, their sha256 checked ──TarReader──▶ names and spans of the members, all as expected
        ──tar_file_expander, group_by_keys──▶ samples, compared with those names

The checks are needed for two reasons. First, webdataset uses Python's tarfile, which takes a
damaged header for the end of the archive, unpacks compressed archives and expands sparse files to
any size. Second, webdataset skips links and some names. A member that it would skip or change is an
error here. webdataset gets only bytes and opens no file, so it cannot run a command for a name with
`pipe:`. Nothing is decoded, so no member is unpickled.

webdataset is imported when the first shard is written or read, and without torch.
"""

import io
import sys
import tarfile
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from data_pipeline.errors import DatasetFileError, TarContentError
from data_pipeline.storage.tar import ZERO_BLOCK, TarReader

Sample = dict[str, bytes]  # contents of the members, by suffix

_LOADING = threading.Lock()


def write_samples(samples: Iterable[tuple[str, Sample]]) -> bytes:
    """Return the bytes of a tar archive of (key, sample) pairs, without times or users."""
    buffer = io.BytesIO()
    writer = _library().TarWriter(
        buffer, user="", group="", mode=0o644, mtime=0, compress=False, encoder=False
    )
    # TarWriter's parameter `format` has no effect. Without this line, long names and non-ASCII
    # letters would get PAX headers.
    writer.tarstream.format = tarfile.USTAR_FORMAT
    with writer:
        for key, sample in samples:
            writer.write({"__key__": key, **sample})
    return buffer.getvalue()


def read_samples(
    file: str, data: bytes, suffixes: list[str], wanted: Collection[str]
) -> dict[str, Sample]:
    """Return the samples of a tar archive by key, in the archive's order, with the wanted members.

    Args:
        data: the file's bytes, whose sha256 the store has verified.
        suffixes: the suffixes of the members that each sample must have.
        wanted: the suffixes of the members that are returned.

    Raises:
        DatasetFileError: the archive is damaged or has other members.
    """
    spans = _checked_spans(file, data, suffixes)
    if set(wanted) < set(suffixes):  # webdataset would copy unwanted members several times
        view = memoryview(data)
        parts = [view[span] for (_, suffix), span in spans.items() if suffix in wanted]
        data = b"".join([*parts, ZERO_BLOCK, ZERO_BLOCK])
    samples = _samples_by_webdataset(file, data)
    found = [(key, suffix) for key, sample in samples for suffix in sample]
    expected = [name for name in spans if name[1] in wanted]
    if found != expected:
        raise DatasetFileError(
            file,
            f"members that webdataset reads as {_joined(expected)}",
            _joined(found) or "none that it reads",
        )
    return dict(samples)


def _checked_spans(file: str, data: bytes, suffixes: list[str]) -> dict[tuple[str, str], slice]:
    """Return the byte range of each member by key and suffix, after checking all names."""
    spans: dict[tuple[str, str], slice] = {}
    reader = TarReader(io.BytesIO(data), archive=file, max_member_bytes=len(data))
    keys: set[str] = set()
    try:
        for key, members in groupby(reader, key=itemgetter(0)):
            found: list[str] = []
            for _, suffix in members:
                if suffix not in suffixes or suffix in found or key in keys:
                    raise DatasetFileError(
                        file,
                        f"only files KEY.{{{','.join(suffixes)}}}, once and block by block",
                        f"member {reader.name!r}",
                    )
                found.append(suffix)
                spans[key, suffix] = reader.span
            if len(found) != len(suffixes):
                raise DatasetFileError(file, f"{suffixes} in block {key}", str(found))
            keys.add(key)
    except TarContentError as error:
        raise DatasetFileError(
            file, "a whole tar file of regular files", f"{error.member}: {error.problem}"
        ) from error
    return spans


def _samples_by_webdataset(file: str, data: bytes) -> list[tuple[str, Sample]]:
    library = _library()
    archive = {"url": file, "stream": io.BytesIO(data)}  # the url only appears in errors
    members = library.tar_file_expander([archive], handler=library.reraise_exception)
    samples = []
    try:
        for sample in library.group_by_keys(members, handler=library.reraise_exception):
            key = sample.pop("__key__")
            del sample["__url__"]
            samples.append((key, sample))
    except (tarfile.TarError, ValueError, LookupError, AssertionError) as error:
        cause = f"{type(error).__name__}: {next(iter(error.args), '')}"
        raise DatasetFileError(file, "a tar file that webdataset reads", cause) from error
    return samples


def _joined(names: list[tuple[str, str]]) -> str:
    return ", ".join(f"{key}.{suffix}" for key, suffix in names)


class _Library(NamedTuple):
    """Parts of webdataset 1.0.2 that this module uses."""

    TarWriter: Callable[..., Any]
    tar_file_expander: Callable[..., Iterator[dict[str, Any]]]
    group_by_keys: Callable[..., Iterator[dict[str, Any]]]
    reraise_exception: Callable[[Exception], bool]


@cache
def _library() -> _Library:
    with _LOADING:
        if "torch" in sys.modules or "webdataset" in sys.modules:
            return _import_library()
        with _without_torch():
            library = _import_library()
        # This import used substitutes for torch's classes. Later imports of webdataset, for torch's
        # DataLoader for example, must get the complete package.
        for name in list(sys.modules):
            if name.partition(".")[0] == "webdataset":
                del sys.modules[name]
        return library


def _import_library() -> _Library:
    from webdataset.handlers import reraise_exception
    from webdataset.tariterators import group_by_keys, tar_file_expander
    from webdataset.writer import TarWriter

    return _Library(TarWriter, tar_file_expander, group_by_keys, reraise_exception)


class _TorchIsMissing(MetaPathFinder):
    """Import finder that hides torch from one thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("torch is hidden from this import", name=name)


@contextmanager
def _without_torch() -> Iterator[None]:
    """Hide torch from imports of this thread, so that webdataset is imported without it.

    webdataset does not need torch for tar files, but imports it if it can, and has no option not
    to. Each data worker and preparation process would take 2.2 s of CPU and 235 MB for the import
    instead of 0.3 s and 36 MB. Other threads can still import torch.
    """
    finder = _TorchIsMissing()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
