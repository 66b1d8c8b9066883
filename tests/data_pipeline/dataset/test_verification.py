"""Verification finds every kind of wrong file in a dataset, and nothing else."""

import gzip
import hashlib
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backports import zstd
from support.datasets import edit_manifest
from support.quality import memory

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import ShardBlock, pack_shard
from data_pipeline.dataset.verification import FileProblem, problems_of
from data_pipeline.preparation.quarantine import quarantine
from data_pipeline.storage.store import open_store


def verify(dataset: Path, processes: int = 1) -> list[FileProblem]:
    def ignore(done: int, total: int) -> None: ...

    manifest = Manifest.load(open_store(dataset))
    return problems_of(str(dataset), manifest, rules_by_corpus(manifest), processes, ignore)


@pytest.mark.parametrize("processes", [1, 3])
def test_an_intact_dataset_has_no_problems(dataset: Path, processes: int) -> None:
    reports: list[tuple[int, int]] = []
    manifest = Manifest.load(open_store(dataset))
    problems = problems_of(
        str(dataset),
        manifest,
        rules_by_corpus(manifest),
        processes,
        lambda done, total: reports.append((done, total)),
    )
    assert problems == []
    files = len(list(manifest.files()))
    assert files == 8 + 1 + 4 + 1  # shards, tokenizer, held-out text, report
    assert reports == [(done, files) for done in range(1, files + 1)]


@pytest.mark.parametrize("processes", [1, 2])
def test_every_wrong_file_is_reported_with_the_expected_content(
    copy: Path, manifest: Manifest, processes: int
) -> None:
    names = [name for name, _ in manifest.files()]
    sizes = {}
    for number, name in enumerate(names):
        content = (copy / name).read_bytes()
        sizes[name] = len(content)
        if number % 3 == 0:
            (copy / name).unlink()
        elif number % 3 == 1:
            (copy / name).write_bytes(content[:-1])
        else:
            (copy / name).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    problems = verify(copy, processes)
    assert [problem.file for problem in problems] == names
    hashes = dict(manifest.files())
    for number, problem in enumerate(problems):
        is_shard = problem.file.startswith("shards/")
        if number % 3 == 0:
            assert "no readable file" in problem.found
        elif number % 3 == 1 and is_shard:
            assert problem.expected == f"{sizes[problem.file]:,} bytes"
            assert problem.found == f"{sizes[problem.file] - 1:,} bytes"
        else:
            assert problem.expected == f"sha256 {hashes[problem.file]}"


def test_a_shard_that_contradicts_its_manifest_is_reported(copy: Path, manifest: Manifest) -> None:
    """The shard's bytes and hash match the manifest; its tokens or its format do not."""
    first, second = (shard.name for shard in list(manifest.shards)[:2])
    edit_manifest(copy, lambda m: m["shards"][0]["tokens"].update(src=1))
    (copy / second).write_bytes(b"no tar")
    sha256 = hashlib.sha256(b"no tar").hexdigest()
    edit_manifest(copy, lambda m: m["shards"][1].update(bytes=6, sha256=sha256))
    one, other = verify(copy)
    assert (one.file, other.file) == (first, second)
    assert "src 1, " in one.expected
    assert "tar file" in other.expected


@pytest.mark.parametrize(
    "change",
    [
        lambda counts: counts.append(0),
        lambda counts: counts.__setitem__(slice(6, 8), [counts[6] - 1, counts[7] + 1]),
    ],
)
def test_a_histogram_that_contradicts_the_shards_is_reported(
    copy: Path, change: Callable[[list[int]], object]
) -> None:
    edit_manifest(copy, lambda m: change(m["lengths"]["tgt"]))
    (problem,) = verify(copy)
    assert problem.file == "manifest.json"
    assert "lengths of tgt" in problem.expected


def test_quarantined_shards_are_not_read(copy: Path, manifest: Manifest) -> None:
    lost = manifest.shards[3].name
    (copy / lost).unlink()
    assert [problem.file for problem in verify(copy)] == [lost]
    quarantine(copy, [lost], "lost")
    assert verify(copy) == []


def replace_shard(dataset: Path, data: bytes, **recorded: Any) -> str:
    """Replace the first shard, also in the manifest, and return its name."""
    name: str = json.loads((dataset / "manifest.json").read_bytes())["shards"][0]["name"]
    (dataset / name).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    edit_manifest(
        dataset, lambda m: m["shards"][0].update(bytes=len(data), sha256=sha256, **recorded)
    )
    return name


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd.compress])
def test_a_compressed_shard_is_refused(copy: Path, compress: Callable[[bytes], bytes]) -> None:
    """Verification decompresses nothing, so a bomb takes no memory."""
    name = replace_shard(copy, compress(bytes(20_000_000)))
    with memory.at_most(10_000_000):
        (problem,) = verify(copy)
    assert (problem.file, problem.expected) == (name, "a whole tar file of regular files")


def test_a_sequence_longer_than_in_the_manifest_is_reported(copy: Path, manifest: Manifest) -> None:
    """Verification makes no histogram up to the length of this sequence."""
    shard, tokens = manifest.shards[0], 20_000_000
    lengths = np.full(shard.pairs, 2, dtype=np.int32)
    short = FieldArrays(np.ones(2 * shard.pairs, dtype=np.int32), lengths)
    long_lengths = lengths.copy()
    long_lengths[0] = tokens
    ids = np.ones(tokens + 2 * (shard.pairs - 1), dtype=np.int32)
    texts = {"src": b"a\n" * shard.pairs, "tgt": b"a\n" * shard.pairs}
    data = pack_shard(
        [ShardBlock("0", texts, {"src": FieldArrays(ids, long_lengths), "tgt": short})]
    )
    name = replace_shard(copy, data, tokens={"src": len(ids), "tgt": 2 * shard.pairs})
    with memory.at_most(len(data) * 6):  # a histogram of all lengths takes eight times as much
        (problem,) = verify(copy)
    assert problem.file == name
    assert problem.found == f"{tokens:,} tokens in sequence 1"
