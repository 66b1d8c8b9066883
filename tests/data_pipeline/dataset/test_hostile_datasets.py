"""Datasets that were made to do harm are refused by file and line before they are used.

All sizes and hashes are right, because the author of a dataset also writes its manifest.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.datasets import edit_manifest
from support.quality import memory

from data_pipeline.arrays import FieldArrays
from data_pipeline.batching.heldout import load_heldout
from data_pipeline.batching.task import rules_by_corpus
from data_pipeline.batching.window import WindowReader
from data_pipeline.config.data import DataSettings
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import ShardBlock, pack_shard, unpack_shard
from data_pipeline.dataset.verification import FileProblem, problems_of
from data_pipeline.errors import CorpusError, DatasetError, DatasetFileError, TokenizerError
from data_pipeline.storage.locations import open_location
from data_pipeline.storage.store import MAX_MANIFEST_BYTES, open_store
from data_pipeline.tokenizers.sentence_piece import SentencePieceTokenizer
from data_pipeline.tokenizers.tokenizer import load_tokenizers

VOCABULARY = 120
PAD = 0


def load(dataset: Path) -> Manifest:
    return Manifest.load(open_store(dataset, retry_delays_seconds=()))


def replace_file(dataset: Path, name: str, data: bytes, info: Callable[[Any], Any]) -> None:
    """Replace a file's content, and its hash in the manifest."""
    (dataset / name).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    edit_manifest(dataset, lambda manifest: info(manifest).update(sha256=sha256))


def spoil(dataset: Path, field: str, change: Callable[[FieldArrays], FieldArrays]) -> None:
    """Change a field of the second block of the first shard, and the manifest accordingly."""
    shard = load(dataset).shards[0]
    blocks = unpack_shard((dataset / shard.name).read_bytes(), shard)
    fields = blocks[1].fields
    blocks[1] = replace(blocks[1], fields=fields | {field: change(fields[field])})
    data = pack_shard(blocks)
    replace_file(dataset, shard.name, data, lambda manifest: manifest["shards"][0])
    tokens = {name: sum(len(b.fields[name].ids) for b in blocks) for name in shard.tokens}
    edit_manifest(dataset, lambda m: m["shards"][0].update(bytes=len(data), tokens=tokens))


def verify(dataset: Path) -> list[FileProblem]:
    manifest = load(dataset)
    rules = rules_by_corpus(manifest)
    return problems_of(str(dataset), manifest, rules, 1, lambda done, total: None)


def with_id(place: int, number: int) -> Callable[[FieldArrays], FieldArrays]:
    """Return a change that replaces one id."""

    def change(field: FieldArrays) -> FieldArrays:
        ids = field.ids.astype(np.int64)
        ids[place] = number
        return FieldArrays(ids, field.lengths)

    return change


def all_padding(field: FieldArrays) -> FieldArrays:
    return FieldArrays(np.full_like(field.ids, PAD), field.lengths)


def emptied(field: FieldArrays) -> FieldArrays:
    """Remove all but EOS from the third sequence."""
    starts = np.cumsum(field.lengths) - field.lengths
    keep = np.ones(len(field.ids), dtype=bool)
    keep[starts[2] : starts[2] + field.lengths[2] - 1] = False
    lengths = field.lengths.copy()
    lengths[2] = 1
    return FieldArrays(field.ids[keep], lengths)


def lengthened(field: FieldArrays) -> FieldArrays:
    """Add 5,000 tokens to the first sequence."""
    ids = np.concatenate((np.full(5_000, 9, field.ids.dtype), field.ids))
    lengths = field.lengths.astype(np.int32)
    lengths[0] += 5_000
    return FieldArrays(ids, lengths)


SHARDS: dict[str, tuple[str, Callable[[FieldArrays], FieldArrays], str]] = {
    "the first id that is none": (
        "src",
        with_id(0, VOCABULARY),
        r"ids below the vocabulary's size 120 in src of .*\.ids\.npz, found id 120 in sequence 1",
    ),
    "the largest id": ("tgt", with_id(0, 2**31 - 1), r"found id 2,147,483,647 in sequence 1\b"),
    "all padding": ("tgt", all_padding, r"no padding in tgt of .*found the padding id, 0, in"),
    "padding within": ("src", with_id(0, PAD), r"no padding in src of .* in sequence 1\b"),
    "no EOS": ("tgt", with_id(-1, 9), r"EOS, 3, as the last id in tgt of .*found 9 as .* sequence"),
    "empty": (
        "tgt",
        emptied,
        r"a text, of at least 2 tokens, in tgt .*found 1 token in sequence 3",
    ),
    "too long": (
        "src",
        lengthened,
        r"at most \d+ tokens, as in manifest\.json, in src .*found 5,",
    ),
}


@pytest.mark.parametrize(("field", "change", "message"), SHARDS.values(), ids=SHARDS)
def test_invalid_sequences_are_refused_with_file_and_sequence_by_each_reader(
    copy: Path,
    data_settings: Callable[..., DataSettings],
    field: str,
    change: Callable[[FieldArrays], FieldArrays],
    message: str,
) -> None:
    spoil(copy, field, change)
    (problem,) = [found for found in verify(copy) if found.file != "manifest.json"]
    assert problem.file == "shards/train-00000.tar"
    store = open_store(copy, retry_delays_seconds=())
    reader = WindowReader(store, load(copy), data_settings(copy, window_shards=8))
    with pytest.raises(DatasetFileError, match=message) as caught:
        reader.layout(0, 0)  # training requests this layout first
    assert (caught.value.expected, caught.value.found) == (problem.expected, problem.found)


def test_a_dataset_with_the_largest_valid_id_passes_verification(copy: Path) -> None:
    spoil(copy, "src", with_id(0, VOCABULARY - 1))
    assert verify(copy) == []


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "pairs": (lambda m: m["shards"][0].update(pairs=10**25), r"shards\.0\.pairs: .*found 10000000"),
    "kept": (lambda m: m["corpora"][0].update(kept=10**25), r"corpora\.0\.kept: "),
    "tokens": (lambda m: m["shards"][0]["tokens"].update(src=10**25), r"shards\.0\.tokens\.src: "),
    "bytes": (lambda m: m["shards"][0].update(bytes=10**25), r"shards\.0\.bytes: "),
    "negative": (lambda m: m["shards"][0].update(bytes=-1), r"shards\.0\.bytes: .*found -1"),
    "a vocabulary": (
        lambda m: m["tokenizers"]["src"].update(vocabulary_size=10**25),
        r"tokenizers\.src\.vocabulary_size: ",
    ),
    "special ids": (lambda m: m["special_ids"].update(pad=500), "500 is not below the 120 ids of"),
    "a length": (lambda m: m["lengths"]["src"].__setitem__(3, 10**25), r"lengths\.src"),
    "lengths of more": (lambda m: m["lengths"]["src"].append(1), "501 examples, expected 500"),
    "lengths of documents": (
        lambda m: m["lengths"].update(src={"counts": [0, 500], "longest": 1}),
        r"lengths\.src does not have the form of a field with the role source",
    ),
    "no lengths": (
        lambda m: m["lengths"].pop("tgt"),
        "lengths: expected the fields src, tgt, found",
    ),
    "no tokenizer": (lambda m: m["tokenizers"].pop("tgt"), "tokenizers: expected the fields"),
    "no tokens": (
        lambda m: m["shards"][2]["tokens"].pop("tgt"),
        "train-00002.tar: expected the fi",
    ),
    "no file": (
        lambda m: m["heldout"]["small"]["files"].pop("src"),
        "files of small: expected the",
    ),
    "no fields": (lambda m: m.update(fields=[]), "expected the fields none, found"),
    "a thousand wrong": (lambda m: m.update(shards=[1] * 1000), r"shards\.0: [^;]*$"),
    "many keys": (
        lambda m: m.update({f"x{number}": 1 for number in range(10_000)}),
        "x0: Extra inputs.* and 9,997 more",
    ),
    "NaN": (lambda m: m["preparation"].update(x=float("nan")), "NaN is not a JSON number"),
}


@pytest.mark.parametrize(("change", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_invalid_values_of_manifests_are_refused_with_their_key(
    copy: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(copy, change)
    with pytest.raises(
        DatasetError, match=rf"manifest\.json of .* is damaged: .*{message}"
    ) as caught:
        load(copy)
    assert len(str(caught.value)) < 1000


CONTENTS = {
    "deep": (b'{"format":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested deeper than 64"),
    "a little too deep": (b'{"format":' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper than 64"),
    "a key twice": (b'{"format": 1, "format": 2}', "the key 'format' appears twice"),
    "an object of many keys": (
        b"{" + b",".join(b'"%d":1' % number for number in range(20_001)) + b"}",
        "an object of 20,001 keys, expected at most 20,000",
    ),
    "5,000 digits": (b'{"pairs":' + b"9" * 5000 + b"}", "4300 digits"),
    "half a pair": (b'{"format":"\\uD800"}', "surrogates not allowed"),
    "many values": (
        b"[" + b"[]," * 2_000_000 + b"1]",
        "4,000,002 values, expected at most 4,000,000",
    ),
}


@pytest.mark.parametrize(("content", "message"), CONTENTS.values(), ids=CONTENTS)
def test_files_that_are_no_manifest_are_refused(copy: Path, content: bytes, message: str) -> None:
    (copy / "manifest.json").write_bytes(content)
    with memory.at_most(20_000_000), pytest.raises(DatasetError, match=message) as caught:
        load(copy)
    assert len(str(caught.value)) < 1000


def test_a_manifest_that_is_too_large_is_not_read(copy: Path) -> None:
    with (copy / "manifest.json").open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)  # takes no space on the disk
    with (
        memory.at_most(1_000_000),
        pytest.raises(DatasetError),
    ):
        load(copy)


HELDOUT: dict[str, tuple[bytes, str]] = {
    "a line less": (b"a\n" * 39, "expected 40 lines, found 39"),
    "a line more": (b"a\n" * 41, "expected 40 lines, found 41"),
    "the last line torn": (b"a\n" * 39 + b"b", "a line end at the end of it, found 'b'"),
    "no UTF-8": (b"a\n" * 3 + b"\xff\n" + b"a\n" * 36, "UTF-8 in line 4 of it"),
}


@pytest.mark.parametrize(("data", "message"), HELDOUT.values(), ids=HELDOUT)
def test_invalid_heldout_text_is_reported_by_line(copy: Path, data: bytes, message: str) -> None:
    name = "heldout/validation.tgt.txt"
    replace_file(copy, name, data, lambda m: m["heldout"]["validation"]["files"]["tgt"])
    with pytest.raises(DatasetFileError, match=message) as caught:
        load_heldout(open_store(copy), load(copy), "validation")
    assert caught.value.file == name
    (problem,) = verify(copy)
    assert (problem.file, problem.expected) == (name, caught.value.expected)


def test_a_vocabulary_size_different_from_the_tokenizer_s_is_refused(copy: Path) -> None:
    """Otherwise, ids would be compared with a size that differs from the embedding's."""
    edit_manifest(
        copy, lambda m: [info.update(vocabulary_size=9999) for info in m["tokenizers"].values()]
    )
    with pytest.raises(DatasetFileError, match=r"tokenizer\.model .*expected 9,999 ids, found 120"):
        load_tokenizers(open_store(copy), load(copy))


def test_special_ids_different_from_the_tokenizer_s_are_refused(copy: Path) -> None:
    edit_manifest(copy, lambda m: m["special_ids"].update(pad=7))
    with pytest.raises(DatasetFileError, match=r"expected the ids pad 7, .* found pad 0, "):
        load_tokenizers(open_store(copy), load(copy))


@pytest.mark.parametrize("kind", ["FIFO", "character device", "folder"])
def test_special_files_are_refused_without_opening_them(copy: Path, kind: str) -> None:
    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        if kind == "FIFO":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        return path

    message = rf"it is a {kind}, expected a regular file"
    corpus = put(copy / "corpus")
    with pytest.raises(CorpusError, match=rf"{corpus} cannot be read .*{message}"):
        open_location(str(corpus), mirror=None, cache=copy)
    with pytest.raises(TokenizerError, match=rf"{corpus} cannot be read .*{message}"):
        SentencePieceTokenizer.load(corpus)
    shard = load(copy).shards[0]
    put(copy / shard.name)
    (problem,) = verify(copy)
    assert problem.file == shard.name
    assert f"it is a {kind}" in problem.found
    put(copy / "manifest.json")
    with pytest.raises(DatasetError, match=message):
        load(copy)


def test_a_block_without_pairs_passes_verification(copy: Path) -> None:
    shard = load(copy).shards[0]
    blocks = unpack_shard((copy / shard.name).read_bytes(), shard)
    nothing = FieldArrays(np.empty(0, np.uint8), np.empty(0, np.int32))
    empty = ShardBlock("empty", {"src": b"", "tgt": b""}, {"src": nothing, "tgt": nothing})
    data = pack_shard([empty, *blocks])
    replace_file(copy, shard.name, data, lambda manifest: manifest["shards"][0])
    edit_manifest(copy, lambda m: m["shards"][0].update(bytes=len(data)))
    assert verify(copy) == []
