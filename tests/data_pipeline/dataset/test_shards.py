"""Shards: written blocks are read back unchanged; invalid and damaged shards are refused."""

import contextlib
import hashlib
import io
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.arrays import FieldArrays
from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.shards import ShardBlock, pack_shard, unpack_shard
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.storage.store import LocalStore


def make_field(sequences: list[list[int]]) -> FieldArrays:
    ids = [token for sequence in sequences for token in sequence]
    lengths = [len(sequence) for sequence in sequences]
    return FieldArrays(np.array(ids, dtype=np.int32), np.array(lengths, dtype=np.int32))


def make_block(key: str, sequences: list[list[int]]) -> ShardBlock:
    field = make_field(sequences)
    text = "".join(f"satz {sequence}\n" for sequence in sequences).encode()
    return ShardBlock(key, {"src": text, "tgt": text}, {"src": field, "tgt": field})


def info(data: bytes, pairs: int, **tokens: int) -> ShardInfo:
    return ShardInfo(
        name="shards/x.tar",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        corpus=0,
        pairs=pairs,
        first_pair=0,
        tokens=tokens,
    )


BLOCKS = [make_block("00000000", [[5, 3], [70_000, 6, 3]]), make_block("00000001", [[7, 3]])]
PACKED = pack_shard(BLOCKS)
INFO = info(PACKED, pairs=3, src=7, tgt=7)


def assert_same(blocks: list[ShardBlock], originals: list[ShardBlock]) -> None:
    assert [block.key for block in blocks] == [block.key for block in originals]
    for block, original in zip(blocks, originals, strict=True):
        assert block.texts == original.texts
        assert list(block.fields) == list(original.fields)
        for name, field in block.fields.items():
            assert field.ids.tolist() == original.fields[name].ids.tolist()
            assert field.lengths.tolist() == original.fields[name].lengths.tolist()
            largest = max(field.ids.tolist(), default=0)
            assert field.ids.dtype == np.min_scalar_type(largest)  # the smallest type, as stored
            assert field.lengths.dtype == np.int32


def test_blocks_are_read_back_unchanged() -> None:
    blocks = unpack_shard(PACKED, INFO)
    assert_same(blocks, BLOCKS)
    assert blocks[0].sentences("src") == ["satz [5, 3]", "satz [70000, 6, 3]"]


def test_reading_without_texts_changes_nothing_else() -> None:
    without = [ShardBlock(block.key, {}, block.fields) for block in BLOCKS]
    assert_same(unpack_shard(PACKED, INFO, texts=False), without)


SENTENCES = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20)
SEQUENCES = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=300)


@st.composite
def blocks_of_any_kind(draw: st.DrawFn) -> list[ShardBlock]:
    blocks = []
    keys = st.text("abcXYZ0123456789-_/ä", min_size=1, max_size=20).filter(
        lambda key: not key.startswith(("/", "__")) and not key.endswith("/")
    )
    for key in draw(st.lists(keys, min_size=1, max_size=3, unique=True)):
        pairs = draw(st.integers(1, 4))
        texts, fields = {}, {}
        for field in ("src", "tgt"):
            sentences = draw(st.lists(SENTENCES, min_size=pairs, max_size=pairs))
            texts[field] = "".join(sentence + "\n" for sentence in sentences).encode()
            sequences = draw(st.lists(SEQUENCES, min_size=pairs, max_size=pairs))
            fields[field] = make_field(sequences)
        blocks.append(ShardBlock(key, texts, fields))
    return blocks


def written_by_tarfile(shard: bytes) -> bytes:
    """Return a shard with the same members written by tarfile, as before the use of webdataset."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(shard)) as old,
        tarfile.open(fileobj=buffer, mode="w|", format=tarfile.USTAR_FORMAT) as new,
    ):
        for name in old.getnames():
            data = old.extractfile(name)
            assert data is not None
            member = tarfile.TarInfo(name)
            member.size, member.mode = old.getmember(name).size, 0o644
            new.addfile(member, data)
    return buffer.getvalue()


@given(blocks_of_any_kind())
def test_blocks_of_any_kind_are_read_back_unchanged(blocks: list[ShardBlock]) -> None:
    packed = pack_shard(blocks)
    assert packed == written_by_tarfile(packed)
    tokens = {
        field: sum(len(block.fields[field].ids) for block in blocks) for field in ("src", "tgt")
    }
    shard = info(packed, sum(block.pairs for block in blocks), **tokens)
    assert_same(unpack_shard(packed, shard), blocks)


def test_the_bytes_of_a_shard_equal_a_golden_hash() -> None:
    """The bytes never change: the same corpora always give the same dataset."""
    assert (
        hashlib.sha256(PACKED).hexdigest()
        == "1253bc5888399d7a388a4c83090a6502babc69a3930d7a1fb5d5c1785dbc74f0"
    )


def test_many_blocks_with_long_names_equal_a_golden_hash() -> None:
    """The hash is that of the bytes that tarfile alone wrote."""
    key = "ä/" * 40 + "korpus"
    sequences = [[[number + 1] * (pair % 7 + 1) for pair in range(300)] for number in range(9)]
    packed = pack_shard(
        [make_block(f"{key}-{number:04d}", block) for number, block in enumerate(sequences)]
    )
    assert (
        hashlib.sha256(packed).hexdigest()
        == "5e3322d0eef654509663bbfa6b84d9bcca936e3e9100c88ea5a74953755589be"
    )


def block_with(**changes: object) -> ShardBlock:
    good = make_block("0", [[5, 3], [6, 3]])
    parts: dict[str, object] = {
        "key": "0",
        "text": good.texts["tgt"],
        "ids": good.fields["tgt"].ids,
        "lengths": good.fields["tgt"].lengths,
    }
    parts |= changes
    field = FieldArrays(parts["ids"], parts["lengths"])  # type: ignore[arg-type]
    texts = good.texts | {"tgt": parts["text"]}
    return ShardBlock(parts["key"], texts, good.fields | {"tgt": field})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([block_with(text=b"a\nb\nc\n")], "2 lines in 0.tgt.txt, .*, found 3 line ends"),
        ([block_with(text=b"a\nb")], "found 1 line ends"),
        ([block_with(text=b"a\nb\nc")], "found 2 line ends, the last bytes being b'a"),
        ([block_with(text=b"\xff\nb\n")], "UTF-8 in 0.tgt.txt"),
        ([block_with(lengths=np.array([0, 4]))], "at least 1 token .* 0.tgt, found 0 tokens"),
        ([block_with(lengths=np.array([2, 3]))], "2 sequences of 5 tokens"),
        ([block_with(lengths=np.array([4]))], "1 sequence of 4 tokens"),
        ([block_with(ids=np.array([5, 3, -1, 3]))], "are read back unchanged"),
        ([block_with(ids=np.array([5, 3, 2**31, 3]))], "at most 2147483647 .*found 2147483648"),
        ([block_with(ids=np.array([5, 3, 2**32, 3]))], "unsigned integers as tgt.ids"),
        ([block_with(ids=np.array([5.5, 3, 6, 3]))], "unsigned integers as tgt.ids"),
        ([block_with(key="0.v1")], r"found member '0\.v1\.ids\.npz'"),
        ([block_with(key="../0")], r"relative name with no '\.\.'"),
        ([block_with(key="")], r"KEY\.SUFFIX"),
        ([block_with(key="__0__/0")], r"expected members that webdataset reads as __0__/0\.ids"),
        ([block_with(key="a.b\n/0")], r"expected members that webdataset reads as a\.b\n/0\.ids"),
        ([block_with(), block_with()], "once and block by block"),
        ([ShardBlock("0", {}, BLOCKS[0].fields)], r"in block 0, found \['ids\.npz'\]"),
        ([BLOCKS[0], ShardBlock("1", {}, {})], r"in block 1, found \['ids\.npz'\]"),
    ],
)
def test_an_unreadable_shard_is_not_written(blocks: list[ShardBlock], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        pack_shard(blocks)


def test_cut_or_damaged_bytes_are_refused_at_any_place(tmp_path: Path) -> None:
    """Read through a store and `unpack_shard`, as a data worker does."""
    store = LocalStore(tmp_path, retry_delays_seconds=())
    (tmp_path / "shards").mkdir()
    rng = random.Random(1)
    damaged = [PACKED[:length] for length in range(0, len(PACKED), 512)]
    for _ in range(100):
        position = rng.randrange(len(PACKED))
        flipped = PACKED[position] ^ 1 << rng.randrange(8)
        damaged.append(PACKED[:position] + bytes([flipped]) + PACKED[position + 1 :])
    for data in damaged:
        (tmp_path / INFO.name).write_bytes(data)
        with pytest.raises(DatasetFileError, match=r"shards/x\.tar .*expected .*found"):
            unpack_shard(store.read(INFO.name, INFO.sha256, INFO.bytes), INFO)
    (tmp_path / INFO.name).write_bytes(PACKED)
    unpack_shard(store.read(INFO.name, INFO.sha256, INFO.bytes), INFO)


def test_a_cut_shard_is_refused_for_its_size_and_for_its_content() -> None:
    end = len(PACKED.rstrip(b"\0")) // 512 * 512 + 512
    for length in range(0, len(PACKED), 512):
        cut = PACKED[:length]
        with pytest.raises(DatasetFileError, match=f"{len(PACKED):,} bytes, found {length:,} by"):
            unpack_shard(cut, INFO)
        if length <= end:  # beyond this, only padding is lost
            with pytest.raises(DatasetFileError):
                unpack_shard(cut, INFO.model_copy(update={"bytes": length}))


@given(st.lists(st.tuples(st.integers(0, len(PACKED) - 1), st.integers(0, 255)), max_size=9))
def test_damage_never_raises_anything_else(changes: list[tuple[int, int]]) -> None:
    """This includes shards without a sha256, and headers with corrected checksums."""
    damaged = bytearray(PACKED)
    for position, value in changes:
        damaged[position] = value
    with contextlib.suppress(DatasetFileError):
        unpack_shard(bytes(damaged), INFO)


def test_a_dataset_file_error_can_be_pickled() -> None:
    error = DatasetFileError("shards/x.tar", "5 bytes", "4 bytes")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line
    assert (copy.file, copy.expected, copy.found) == ("shards/x.tar", "5 bytes", "4 bytes")
    assert str(copy) == str(error)
