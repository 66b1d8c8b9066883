"""Verification of a dataset: each file is read, hashed, unpacked and compared with the manifest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from data_pipeline.dataset.lengths import Lengths, add_lengths, count_lengths
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.manifest_header import FieldInfo, ShardInfo
from data_pipeline.dataset.sequences import SequenceRules, check_sequences
from data_pipeline.dataset.shards import unpack_shard
from data_pipeline.dataset.texts import unpack_heldout, unpack_texts
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.storage.store import MANIFEST_NAME, open_store
from foundation.process_pool import process_pool


@dataclass(frozen=True)
class FileProblem:
    """Damaged file of a dataset."""

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
    rules: Mapping[str, SequenceRules]  # for the shard's sequences, by field
    heldout: tuple[FieldInfo, int] | None  # field and number of texts of a held-out file
    fields: tuple[FieldInfo, ...]


def problems_of(
    location: str,
    manifest: Manifest,
    rules: Sequence[Mapping[str, SequenceRules]],
    processes: int,
    report: Callable[[int, int], None],
) -> list[FileProblem]:
    """Return all problems of a dataset's files, except for quarantined shards.

    Args:
        rules: for each corpus, the rules for its sequences, by field.
        report: called with the number of files read so far and the number of all files.
    """
    shards = {shard.name: shard for shard in manifest.shards}
    heldout = {
        info.files[field.name].file: (field, info.pairs)
        for info in manifest.heldout.values()
        for field in manifest.fields
    }
    problems = []
    lengths = {field.name: add_lengths(field, []) for field in manifest.fields}
    with (
        # Use an empty cache, to check the files of a remote dataset instead of local copies.
        TemporaryDirectory(prefix="transloom-verify-") as empty,
        process_pool(processes, "compared files", DatasetError) as pool,
    ):
        jobs = [
            _Job(
                location,
                Path(empty),
                name,
                sha256,
                shards.get(name),
                rules[shards[name].corpus] if name in shards else {},
                heldout.get(name),
                manifest.fields,
            )
            for name, sha256 in manifest.files()
        ]
        for done, checked in enumerate(pool.map(_check, jobs), 1):
            if isinstance(checked, FileProblem):
                problems.append(checked)
            elif checked:
                for field in manifest.fields:
                    parts = [lengths[field.name], checked[field.name]]
                    lengths[field.name] = add_lengths(field, parts)
            report(done, len(jobs))
    if not problems and not manifest.tombstones:
        problems += _differing_lengths(manifest, lengths)
    return problems


def _check(job: _Job) -> FileProblem | dict[str, Lengths]:
    # No retries: a user is waiting, and a missing file is unlikely to appear within seconds.
    store = open_store(job.location, cache=job.cache, cache_bytes=0, retry_delays_seconds=())
    try:
        data = store.read(job.name, job.sha256, job.shard.bytes if job.shard else None)
        blocks = unpack_shard(data, job.shard) if job.shard else []
        for block in blocks:
            check_sequences(job.name, block, job.rules)
            for field in job.fields:
                member = f"{block.key}.{field.name}.txt"
                unpack_texts(job.name, block.texts[field.name], field, member)
        if job.heldout:
            unpack_heldout(job.name, data, *job.heldout)
    except DatasetFileError as error:
        return FileProblem(error.file, error.expected, error.found)
    return {
        field.name: add_lengths(
            field, [count_lengths(field, block.fields[field.name].lengths) for block in blocks]
        )
        for field in (job.fields if job.shard else ())
    }


def unknown_files(folder: Path, manifest: Manifest) -> list[str]:
    """Return the files in a dataset's folder that its manifest does not list."""
    known = {MANIFEST_NAME, *(name for name, _ in manifest.files())} | manifest.left_out
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return sorted(found - known)


def _differing_lengths(manifest: Manifest, found: dict[str, Lengths]) -> Iterator[FileProblem]:
    for field, lengths in found.items():
        if manifest.lengths[field] != lengths.to_manifest():
            yield FileProblem(
                "manifest.json",
                f"the lengths of {field} that the shards have",
                "another histogram",
            )
