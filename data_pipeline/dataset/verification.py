"""Is a dataset whole? Every file is read, hashed, unpacked and compared with the manifest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data_pipeline.arrays import Int64Array
from data_pipeline.dataset.manifest import Manifest, ShardInfo
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.process_pool import process_pool
from data_pipeline.storage.store import MANIFEST_NAME, open_store


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file of a dataset."""

    file: str
    expected: str
    found: str


@dataclass(frozen=True)
class _Job:
    """One file to check; `shard` is None for files that are not shards."""

    location: str
    cache: Path
    name: str
    sha256: str
    shard: ShardInfo | None


@dataclass(frozen=True, eq=False)
class _Checked:
    problem: Problem | None
    lengths: dict[str, Int64Array]  # by field: how many pairs have length 0, 1, 2, ...


def problems_of(
    location: str,
    manifest: Manifest,
    processes: int,
    report: Callable[[int, int], None],
) -> list[Problem]:
    """All that is wrong with a dataset but what is quarantined; an empty list for a whole one.

    report is told how many of how many files were read.
    """
    shards = {shard.name: shard for shard in manifest.shards}
    problems = []
    lengths = {field.name: np.zeros(0, dtype=np.int64) for field in manifest.fields}
    with (
        # The files themselves are meant, not the copies of a remote dataset that are here.
        TemporaryDirectory(prefix="transloom-verify-") as empty,
        process_pool(processes, "compared files", DatasetError) as pool,
    ):
        jobs = [
            _Job(location, Path(empty), name, sha256, shards.get(name))
            for name, sha256 in manifest.files()
        ]
        for done, checked in enumerate(pool.map(_check, jobs), 1):
            if checked.problem:
                problems.append(checked.problem)
            for field, counts in checked.lengths.items():
                lengths[field] = add_histograms([lengths[field], counts])
            report(done, len(jobs))
    if not problems and not manifest.tombstones:
        problems += _differing_lengths(manifest, lengths)
    return problems


def _check(job: _Job) -> _Checked:
    # A person waits for the answer: whether a file will be there in ten seconds is not asked.
    store = open_store(job.location, cache=job.cache, cache_bytes=0, retry_delays_seconds=())
    try:
        data = store.read(job.name, job.sha256, job.shard.bytes if job.shard else None)
        blocks = unpack_shard(data, job.shard) if job.shard else []
    except DatasetFileError as error:
        return _Checked(Problem(error.file, error.expected, error.found), {})
    lengths = {
        field: add_histograms([np.bincount(block.fields[field].lengths) for block in blocks])
        for field in (job.shard.tokens if job.shard else ())
    }
    return _Checked(None, lengths)


def strange_files(folder: Path, manifest: Manifest) -> list[str]:
    """Files in a dataset's folder that its manifest does not know."""
    known = {MANIFEST_NAME, *(name for name, _ in manifest.files())} | manifest.left_out
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return sorted(found - known)


def add_histograms(histograms: Sequence[Int64Array]) -> Int64Array:
    """Their sum, as long as the longest of them."""
    total = np.zeros(max(map(len, histograms)), dtype=np.int64)
    for histogram in histograms:
        total[: len(histogram)] += histogram
    return total


def _differing_lengths(manifest: Manifest, found: dict[str, Int64Array]) -> Iterator[Problem]:
    for field, counts in found.items():
        if manifest.lengths[field] != tuple(counts.tolist()):
            yield Problem(
                "manifest.json",
                f"the lengths of {field} that the shards have",
                "another histogram",
            )
