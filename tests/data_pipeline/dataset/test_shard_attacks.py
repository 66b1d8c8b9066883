"""Shards that were made to do harm are refused by name and with little memory."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sized

import numpy as np
import pytest
from support.quality import memory

from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.shards import ShardBlock, unpack_shard
from data_pipeline.errors import DatasetFileError


def npz(files: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, **files)
    return buffer.getvalue()


GOOD = {
    "src.ids": np.array([5, 3], np.uint8),
    "src.lengths": np.array([2], np.uint8),
    "tgt.ids": np.array([6, 3], np.uint8),
    "tgt.lengths": np.array([2], np.uint8),
}


def pack(members: list[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def one_pair(ids: bytes | None = None, key: str = "0") -> list[tuple[str, bytes]]:
    ids = npz(GOOD) if ids is None else ids
    return [(f"{key}.src.txt", b"a\n"), (f"{key}.tgt.txt", b"b\n"), (f"{key}.ids.npz", ids)]


def unpack_one(data: bytes, texts: bool = True) -> list[ShardBlock]:
    shard = ShardInfo(
        name="shards/x.tar",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        corpus=0,
        pairs=1,
        first_pair=0,
        tokens={"src": 2, "tgt": 2},
    )
    return unpack_shard(data, shard, texts=texts)


def test_the_shard_made_by_hand_is_valid() -> None:
    assert unpack_one(pack(one_pair()))[0].sentences("tgt") == ["b"]


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pack([*one_pair(), ("0.src.pyd", pickle.dumps(1))]), r"only files .*'0\.src\.pyd'"),
        (pack([*one_pair(), ("0.extra.txt", b"x\n")]), r"only files .*'0\.extra\.txt'"),
        (pack([*one_pair(), ("0.src.txt", b"a\n")]), r"once .*'0\.src\.txt'"),
        (pack([*one_pair(), *one_pair(key="1"), *one_pair()]), r"block by block.*'0\.src\.txt'"),
        (pack([*one_pair()[1:], *one_pair(key="1")]), r"in block 0, found \['tgt\.txt', 'ids"),
        (pack(one_pair()[:2]), r"in block 0, found \['src\.txt', 'tgt\.txt'\]"),
        (pack([*one_pair(), *one_pair(key="1")]), "1 pair with tokens: .* found 2 pairs"),
        (pack(one_pair(), tarfile.SYMTYPE), r"0\.src\.txt: .*a symbolic link of type b'2'"),
        (pack(one_pair(), tarfile.GNUTYPE_SPARSE), r"0\.src\.txt: .*a sparse file of type b'S'"),
        (pack(one_pair(key="../0")), r"\.\./0\.src\.txt: expected a relative name"),
        (pack(one_pair(key="__0__/0")), r"webdataset reads as __0__/0\.\w+.*, found none"),
        (pack(one_pair(key="a.b\n/0")), r"webdataset reads as a\.b\n/0\.\w+"),
        (gzip.compress(pack(one_pair())), "a whole tar file .*header at byte 0: "),
        (b"\1" + pack(one_pair())[1:], "a whole tar file .*header at byte 0: expected checksum"),
        (pack(one_pair())[:1024] + bytes(9216), r"in block 0, found \['src\.txt'\]"),
        (pack([]), "1 pair with tokens: src 2, tgt 2, found 0 pairs"),
        (b"no tar file", "a whole tar file .*header at byte 0: truncated"),
        (b"no tar file" * 512, "a whole tar file .*header at byte 0: expected an octal number"),
        (b"", "truncated: expected 512 bytes .* found 0"),
    ],
)
def test_tars_that_break_the_format_are_refused(data: bytes, message: str, texts: bool) -> None:
    with pytest.raises(DatasetFileError, match=message) as caught:
        unpack_one(data, texts)
    assert caught.value.file == "shards/x.tar"


def with_arrays(**changes: np.ndarray) -> bytes:
    return npz(GOOD | {name.replace("_", "."): array for name, array in changes.items()})


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(header: bytes, data: bytes = b"\5\3", version: bytes = b"\1\0") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


def with_src_ids(file: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """Return the good arrays, with these bytes as the file src.ids.npy."""
    files = {f"{name}.npy": npy(header_of(array), array.tobytes()) for name, array in GOOD.items()}
    return zip_of(files | {"src.ids.npy": file}, method)


def header_of(array: Sized) -> bytes:
    return b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }\n" % len(array)


def shaped(shape: bytes, descr: bytes = b"'|u1'", data: bytes = b"\5\3") -> bytes:
    header = b"{'descr': %s, 'fortran_order': False, 'shape': %s, }\n" % (descr, shape)
    return with_src_ids(npy(header, data))


def entry_changed(offset: int, value: int, form: str = "<L") -> bytes:
    """Return the good npz with a number changed in the first entry of its directory."""
    data = bytearray(npz(GOOD))
    struct.pack_into(form, data, data.index(b"PK\1\2") + offset, value)
    return bytes(data)


def beyond_the_end() -> bytes:
    """Return an array whose sizes agree with each other but exceed the file."""
    data = bytearray(zip_of({"src.ids.npy": npy(header_of(range(10**9)))}))
    size = 10**9 + data.index(b"\n") + 1 - data.index(b"\x93NUMPY")
    struct.pack_into("<LL", data, data.index(b"PK\1\2") + 20, size, size)
    return bytes(data)


def end_changed(change: Callable[[bytearray, int], None]) -> bytes:
    data = bytearray(npz(GOOD))
    change(data, data.index(b"PK\5\6"))
    return bytes(data)


def bomb() -> bytes:
    """Return 30 MB of zeros, compressed to 30 kB."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **GOOD | {"src.ids": np.zeros(30_000_000, np.uint8)})
    return buffer.getvalue()


NPZ_ATTACKS = {
    "deflate bomb": (bomb(), r"'src\.ids\.npy' stored uncompressed"),
    "deflated": (with_src_ids(npy(header_of(GOOD["src.ids"])), 8), "stored uncompressed"),
    "pickled objects": (with_arrays(src_ids=np.array([{}], object)), r"integers as src\.ids.*\|O"),
    "floats": (with_arrays(src_ids=np.array([5.0, 3.0])), "unsigned integers.*<f8"),
    "signed": (with_arrays(src_ids=np.array([5, 3], np.int16)), "unsigned integers.*<i2"),
    "8 bytes each": (with_arrays(src_ids=np.array([5, 3], np.uint64)), "integers.*<u8"),
    "big-endian": (with_arrays(src_ids=np.array([5, 3], ">u2")), "integers.*>u2"),
    "two dimensions": (with_arrays(src_ids=np.array([[5, 3]], np.uint8)), r"flat .*\(1, 2\)"),
    "a scalar": (with_arrays(src_ids=np.array(5, np.uint8)), r"flat .*\(\)"),
    "one array more": (with_arrays(more=np.array([1], np.uint8)), "expected arrays .*'more'"),
    "an array missing": (npz(dict(list(GOOD.items())[1:])), "expected arrays"),
    "another file": (zip_of({"x.py": b"print()"}), "unsigned integers as x.py"),
    "id 2**31": (
        with_arrays(src_ids=np.array([5, 2**31], np.uint32)),
        r"at most 2147483647 in src\.ids in 0\.ids\.npz, found 2147483648",
    ),
    "length 2**32 - 1": (
        with_arrays(src_lengths=np.array([2**32 - 1], np.uint32)),
        r"at most 2147483647 in src\.lengths",
    ),
    "length 0": (with_arrays(src_lengths=np.array([2, 0], np.uint8)), "at least 1 token"),
    "one length more": (with_arrays(tgt_lengths=np.array([1, 1], np.uint8)), "2 sequences of 2"),
    "only length 0": (
        with_arrays(src_ids=np.empty(0, np.uint8), src_lengths=np.array([0], np.uint8)),
        r"at least 1 token in each sequence of 0\.src",
    ),
    "lengths beyond ids": (with_arrays(src_lengths=np.array([3], np.uint8)), "1 .* of 3 tokens"),
    "10**12 items": (shaped(b"(1000000000000,)"), "expected 1,000,000,000,000 bytes"),
    "999999999999 items of 4": (shaped(b"(999999999999,)", b"'<u4'"), "3,999,999,999,996 bytes"),
    "items of a huge number": (shaped(b"(" + b"9" * 5000 + b",)"), "flat array"),
    "one item too many": (shaped(b"(3,)"), r"expected 3 bytes of src\.ids .*found 2 bytes"),
    "one item too few": (shaped(b"(1,)"), r"expected 1 bytes of src\.ids .*found 2 bytes"),
    "negative items": (shaped(b"(-1,)"), "flat array"),
    "a power as shape": (shaped(b"(9**9**9,)"), "flat array"),
    "a call as shape": (shaped(b"(__import__('os').abort(),)"), "flat array"),
    "a deep shape": (shaped(b"(" * 5000 + b"2" + b")" * 5000), "flat array"),
    "a structured type": (shaped(b"(2,)", b"[('a', '|u1')]"), "flat array"),
    "a header longer than it": (with_src_ids(npy(header_of(GOOD["src.ids"]) * 2)), "expected"),
    "a header of 65535 bytes": (
        with_src_ids(b"\x93NUMPY\1\0\xff\xff" + header_of(GOOD["src.ids"]) + b"\5\3"),
        "flat array",
    ),
    "version 2, header of 4 GB": (
        with_src_ids(npy(b"\xff\xff" + header_of(GOOD["src.ids"]), version=b"\2\0")),
        "flat array",
    ),
    "encrypted": (entry_changed(8, 1, "<H"), "stored uncompressed"),
    "sizes that differ": (entry_changed(20, 2**31), "stored uncompressed"),
    "both sizes beyond the end": (entry_changed(20, 2**63 - 1, "<Q"), "stored uncompressed"),
    "size beyond the end": (entry_changed(20, (2**31 << 32) + 2**31, "<Q"), "within 770 bytes"),
    "size beyond the end, and items too": (beyond_the_end(), "within"),
    "one size too small": (entry_changed(20, (129 << 32) + 129, "<Q"), "src.ids|stored"),
    "offset of another": (entry_changed(42, 10), "stored uncompressed at byte 0"),
    "name beyond the end": (entry_changed(28, 65535, "<H"), "whole zip file|integers as"),
    "bytes before": (b"x" * 8 + npz(GOOD), "its directory at the end"),
    "bytes after": (npz(GOOD) + b"x", "its directory at the end"),
    "comment": (end_changed(lambda d, end: struct.pack_into("<H", d, end + 20, 1)), "at the end"),
    "more entries": (
        end_changed(lambda d, end: struct.pack_into("<HH", d, end + 8, 9, 9)),
        "stored uncompressed|whole zip file",
    ),
    "fewer entries": (
        end_changed(lambda d, end: struct.pack_into("<HH", d, end + 8, 3, 3)),
        "arrays in all",
    ),
    "directory elsewhere": (
        end_changed(lambda d, end: struct.pack_into("<LL", d, end + 12, 0, 2**32 - 1)),
        "its directory at the end",
    ),
    "no zip file": (b"PK", "a whole zip file"),
    "nothing": (b"", "a whole zip file"),
}


@pytest.mark.parametrize(("ids", "message"), NPZ_ATTACKS.values(), ids=NPZ_ATTACKS)
def test_arrays_that_break_the_format_are_refused(ids: bytes, message: str) -> None:
    """Each shard is refused by name and member, with no more memory than the shard takes."""
    shard = pack(one_pair(ids))
    with memory.at_most(1_000_000), pytest.raises(DatasetFileError, match=message) as caught:
        unpack_one(shard)
    assert caught.value.file == "shards/x.tar"
    assert "0." in caught.value.expected


def test_an_array_that_occurs_twice_is_refused() -> None:
    buffer = io.BytesIO(npz(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("src.ids.npy", npy(header_of(GOOD["src.ids"]), b"\5\3"))
    with pytest.raises(DatasetFileError, match=r"one array src\.ids in 0\.ids\.npz, found two"):
        unpack_one(pack(one_pair(buffer.getvalue())))


@pytest.mark.parametrize("text", [b"a\nb\n", b"", b"a", b"a\nb", b"\xff\n"])
def test_invalid_texts_are_refused_only_if_texts_are_requested(text: bytes) -> None:
    shard = pack([("0.src.txt", text), *one_pair()[1:]])
    with pytest.raises(DatasetFileError, match=r"in 0\.src\.txt"):
        unpack_one(shard)
    assert unpack_one(shard, texts=False)[0].texts == {}
