"""Shards: what is written comes back, by any WebDataset reader; anything else is refused."""

import gc
import hashlib
import io
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_pipeline.batch import FieldArrays
from data_pipeline.errors import DatasetFileError
from data_pipeline.manifest import Manifest, ShardInfo
from data_pipeline.shards import Block, pack_shard, read_shard, unpack_shard


def make_block(key: str, sequences: list[list[int]]) -> Block:
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int32)
    field = FieldArrays(np.concatenate(sequences).astype(np.int32), lengths)
    text = "".join(f"satz {sequence}\n" for sequence in sequences).encode()
    return Block(key, {"src": text, "tgt": text}, {"src": field, "tgt": field})


BLOCKS = [make_block("00000000", [[5, 3], [70_000, 6, 3]]), make_block("00000001", [[7, 3]])]
INFO = ShardInfo(
    name="shards/x.tar",
    bytes=0,
    sha256="0" * 64,
    pairs=3,
    first_pair=0,
    tokens={"src": 7, "tgt": 7},
)


def test_blocks_come_back() -> None:
    blocks = unpack_shard(pack_shard(BLOCKS), INFO)
    assert [block.key for block in blocks] == ["00000000", "00000001"]
    for block, original in zip(blocks, BLOCKS, strict=True):
        assert block.texts == original.texts
        for name, field in block.fields.items():
            assert np.array_equal(field.ids, original.fields[name].ids)
            assert np.array_equal(field.lengths, original.fields[name].lengths)
            assert field.ids.dtype == np.int32
    assert blocks[0].sentences("src") == ["satz [5, 3]", "satz [70000, 6, 3]"]


def test_golden_bytes_of_the_format() -> None:
    """The bytes are a promise: the same corpora give the same dataset for ever."""
    assert (
        hashlib.sha256(pack_shard(BLOCKS)).hexdigest()
        == "1253bc5888399d7a388a4c83090a6502babc69a3930d7a1fb5d5c1785dbc74f0"
    )


# webdataset leaves its file open until it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_plain_webdataset_reader_reads_it(dataset: Path, manifest: Manifest) -> None:
    path = dataset / manifest.shards[0].name
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    blocks = read_shard(dataset, manifest.shards[0])
    gc.collect()
    assert [sample["__key__"] for sample in samples] == [block.key for block in blocks]
    for sample, block in zip(samples, blocks, strict=True):
        assert sample["src.txt"] == block.texts["src"]
        arrays = np.load(io.BytesIO(sample["ids.npz"]), allow_pickle=False)
        assert np.array_equal(arrays["tgt.ids"], block.fields["tgt"].ids)


def change(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(data[:-1000])
    elif how == "bit flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"train-00001\.tar .*expected [\d,]+ bytes in .*found no readable file"),
        ("truncated", r"train-00001\.tar .*expected [\d,]+ bytes, found [\d,]+ bytes"),
        ("bit flipped", r"train-00001\.tar .*expected sha256 \w{64}, found sha256 \w{64}"),
    ],
)
def test_damaged_files_are_named(
    dataset: Path, manifest: Manifest, tmp_path: Path, how: str, message: str
) -> None:
    copy = shutil.copytree(dataset, tmp_path / "copy")
    change(copy / manifest.shards[1].name, how)
    with pytest.raises(DatasetFileError, match=message):
        read_shard(copy, manifest.shards[1])
    read_shard(copy, manifest.shards[0])


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


GOOD = {
    "src.ids": np.array([5, 3], np.uint8),
    "src.lengths": np.array([2], np.uint8),
    "tgt.ids": np.array([6, 3], np.uint8),
    "tgt.lengths": np.array([2], np.uint8),
}


def pack(members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def one_pair(**changes: np.ndarray) -> dict[str, bytes]:
    arrays = GOOD | {name.replace("_", "."): array for name, array in changes.items()}
    return {"0.src.txt": b"a\n", "0.tgt.txt": b"b\n", "0.ids.npz": npz(**arrays)}


ONE = INFO.model_copy(update={"pairs": 1, "tokens": {"src": 2, "tgt": 2}})


def test_the_hand_made_shard_is_right() -> None:
    assert unpack_shard(pack(one_pair()), ONE)[0].sentences("tgt") == ["b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pack(one_pair() | {"0.src.pyd": pickle.dumps(1)}), r"only files .*'0\.src\.pyd'"),
        (pack(one_pair() | {"0.extra.txt": b"x\n"}), r"only files .*'0\.extra\.txt'"),
        (pack(one_pair(), tarfile.SYMTYPE), "only files .*of type b'2'"),
        (pack({"0.src.txt": b"a\n"}), r"\['src', 'tgt', 'ids'\] in block 0, found \['src'\]"),
        (pack(one_pair(src_ids=np.array([{}], object))), "allow_pickle=False"),
        (pack(one_pair(src_ids=np.array([5.0, 3.0]))), "array of float64"),
        (pack(one_pair(src_ids=np.array([[5, 3]], np.uint8))), r"array of uint8 \(1, 2\)"),
        (pack(one_pair(more=np.array([1], np.uint8))), "expected arrays .*'more'"),
        (pack(one_pair(src_lengths=np.array([3], np.uint8))), "1 sequences of 3 tokens"),
        (pack(one_pair(tgt_lengths=np.array([1, 1], np.uint8))), "2 sequences of 2 tokens"),
        (pack(one_pair() | {"0.ids.npz": b"PK"}), r"ids\.npz"),
        (pack({}), "1 pairs with 2 tokens of src, found 0 pairs"),
        (b"no tar file", "a whole tar file"),
        (b"", "a whole tar file"),
    ],
)
def test_content_that_is_not_as_promised(data: bytes, message: str) -> None:
    with pytest.raises(DatasetFileError, match=message):
        unpack_shard(data, ONE)


def test_shard_error_crosses_process_borders() -> None:
    error = DatasetFileError("shards/x.tar", "5 bytes", "4 bytes")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line
    assert (copy.shard, copy.expected, copy.found) == ("shards/x.tar", "5 bytes", "4 bytes")
    assert str(copy) == str(error)


def test_reading_needs_neither_torch_nor_webdataset() -> None:
    code = (
        "import sys, data_pipeline.stream; "
        "sys.exit(bool({'torch', 'webdataset', 'ray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
