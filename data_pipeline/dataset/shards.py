"""Shards: tar files of blocks of pairs, readable by any WebDataset reader.

A tar sample is a block of many pairs, because the cost per sample is high. With one pair per
sample, 29,000 pairs take 59 MB; in blocks, they take 5.9 MB and are read 80 times faster. The
members of a sample are:

    KEY.src.txt, KEY.tgt.txt   the sentences in UTF-8, one per line
    KEY.ids.npz                src.ids, src.lengths, tgt.ids, tgt.lengths: token ids with EOS,
                               flat, in the smallest unsigned integers that can represent them

webdataset writes and reads the tar files (samples.py); this file handles the content of their
members. The store has already checked the sha256 of the bytes. Unexpected members are errors. numpy
does not open the npz files. Instead, their bytes must match one of the few layouts that a shard can
have. No header is evaluated, and none can claim more bytes than the file has.
"""

import io
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from data_pipeline.arrays import FieldArrays, IdArray
from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.samples import Sample, read_samples, write_samples
from data_pipeline.errors import DatasetError, DatasetFileError
from data_pipeline.storage.store import SHARD
from foundation.wording import counted, format_value

IDS_SUFFIX = "ids.npz"
MAX_ID = 2**31 - 1  # maximum of int32, the type of ids in batches

# Fields of a zip file that are read here (PKWARE's APPNOTE.TXT, sections 4.3.7, .12 and .16).
_ZIP_MEMBER = struct.Struct("<4s22x2H")  # lengths of name and extra field
_ZIP_ENTRY = struct.Struct("<4s4x2H8x2L3H8xL")  # flags, method, sizes, lengths, offset
_ZIP_END = struct.Struct("<4s4x2H2LH")  # numbers of entries, size and offset of directory
_NPY_ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<header_bytes>..)(?P<header>\{'descr': '(?P<dtype>\|u1|<u2|<u4)', "
    rb"'fortran_order': False, 'shape': \((?P<count>\d{1,15}),\), \} *\n)",
    re.DOTALL,
)


@dataclass(frozen=True, eq=False)
class ShardBlock:
    """Aligned pairs that make up one sample of a shard."""

    key: str
    texts: dict[str, bytes]  # by field: UTF-8, one sentence per line; empty if read without texts
    fields: dict[str, FieldArrays]

    @property
    def pairs(self) -> int:
        return len(next(iter(self.fields.values())).lengths)

    def sentences(self, field: str) -> list[str]:
        return self.texts[field].decode().split("\n")[:-1]


def pack_shard(blocks: list[ShardBlock]) -> bytes:
    """Return the bytes of a shard, which depend only on the blocks.

    As a check, the bytes are read back.

    Raises:
        DatasetError: the bytes cannot be read back, or contain different blocks.
    """
    packed = write_samples((block.key, _sample(block)) for block in blocks)
    SHARD.check(len(packed), lambda problem: DatasetError(f"A shard is too large: {problem}."))
    try:
        found = _unpack("packed", packed, blocks[0].fields if blocks else (), texts=True)
    except DatasetFileError as error:
        raise DatasetError(
            f"These blocks cannot be written as a shard: expected {error.expected}, found "
            f"{error.found}. Correct the code that prepares them."
        ) from error
    for block, back in zip(blocks, found, strict=True):
        if not _equal(block, back):
            raise DatasetError(
                f"Block {block.key!r} cannot be written as a shard: expected keys, texts and ids "
                f"that are read back unchanged, found another block {back.key!r}. Correct the code "
                "that prepares them."
            )
    return packed


def _sample(block: ShardBlock) -> Sample:
    texts = {f"{field}.txt": text for field, text in block.texts.items()}
    return {**texts, IDS_SUFFIX: _pack_ids(block.fields)}


def _pack_ids(fields: dict[str, FieldArrays]) -> bytes:
    arrays = {}
    for name, field in fields.items():
        for part, values in (("ids", field.ids), ("lengths", field.lengths)):
            arrays[f"{name}.{part}"] = values.astype(np.min_scalar_type(values.max(initial=0)))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _equal(block: ShardBlock, other: ShardBlock) -> bool:
    return (
        (block.key, block.texts) == (other.key, other.texts)
        and block.fields.keys() == other.fields.keys()
        and all(
            np.array_equal(field.ids, other.fields[name].ids)
            and np.array_equal(field.lengths, other.fields[name].lengths)
            for name, field in block.fields.items()
        )
    )


def unpack_shard(data: bytes, shard: ShardInfo, *, texts: bool = True) -> list[ShardBlock]:
    """Return the blocks of a shard in file order, checked against the manifest's pairs and tokens.

    Args:
        data: the shard's bytes, whose sha256 the store has verified.
        texts: whether to extract and check the sentences; if False, `ShardBlock.texts` is empty.

    Raises:
        DatasetFileError: the shard does not have the form that `pack_shard` writes.
    """
    if len(data) != shard.bytes:
        raise DatasetFileError(shard.name, f"{shard.bytes:,} bytes", f"{len(data):,} bytes")
    blocks = _unpack(shard.name, data, shard.tokens, texts=texts)
    pairs = sum(block.pairs for block in blocks)
    tokens = {
        field: sum(len(block.fields[field].ids) for block in blocks) for field in shard.tokens
    }
    if (pairs, tokens) != (shard.pairs, shard.tokens):
        raise DatasetFileError(
            shard.name,
            f"{counted(shard.pairs, 'pair')} with tokens: {format_value(shard.tokens)}",
            f"{counted(pairs, 'pair')} with tokens: {format_value(tokens)}",
        )
    return blocks


def _unpack(file: str, data: bytes, fields: Collection[str], *, texts: bool) -> list[ShardBlock]:
    """Return the blocks of a shard, each checked separately, without comparison with a manifest."""
    suffixes = [IDS_SUFFIX, *(f"{field}.txt" for field in fields)]
    blocks = []
    samples = read_samples(file, data, suffixes, suffixes if texts else [IDS_SUFFIX])
    for key, sample in samples.items():
        arrays = _unpack_ids(file, f"{key}.{IDS_SUFFIX}", sample[IDS_SUFFIX], fields)
        sentences = {field: sample[f"{field}.txt"] for field in fields} if texts else {}
        blocks.append(ShardBlock(key, sentences, arrays))
        _check_block(file, blocks[-1])
    return blocks


def _unpack_ids(
    file: str, member: str, npz: bytes, fields: Collection[str]
) -> dict[str, FieldArrays]:
    arrays = _NpzReader(file, member, npz).arrays()
    expected = sorted(f"{field}.{part}" for field in fields for part in ("ids", "lengths"))
    if sorted(arrays) != expected:
        raise DatasetFileError(file, f"arrays {expected} in {member}", str(sorted(arrays)))
    return {
        field: FieldArrays(arrays[f"{field}.ids"], arrays[f"{field}.lengths"].astype(np.int32))
        for field in fields
    }


def _check_block(file: str, block: ShardBlock) -> None:
    for field, arrays in block.fields.items():
        sequences, tokens = len(arrays.lengths), int(arrays.lengths.sum(dtype=np.int64))
        if (sequences, tokens) != (block.pairs, len(arrays.ids)):
            raise DatasetFileError(
                file,
                f"{counted(block.pairs, 'sequence')} of {counted(len(arrays.ids), 'token')} in "
                f"{block.key}.{field}",
                f"{counted(sequences, 'sequence')} of {counted(tokens, 'token')}",
            )
        if arrays.lengths.min(initial=1) < 1:
            raise DatasetFileError(
                file, f"at least 1 token in each sequence of {block.key}.{field}", "0 tokens"
            )
    for field, text in block.texts.items():
        # Counting in numpy is several times faster than text.count if lines are short.
        lines = int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))
        if lines != block.pairs or text[-1:] != (b"\n" if lines else b""):
            raise DatasetFileError(
                file,
                f"{counted(block.pairs, 'line')} in {block.key}.{field}.txt, each with its end",
                f"{lines} line ends, the last bytes being {text[-10:]!r}",
            )
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise DatasetFileError(file, f"UTF-8 in {block.key}.{field}.txt", str(error)) from error


class _NpzReader:
    """Reader of the arrays of one member KEY.ids.npz.

    The member must have the form that numpy's `savez` writes: an uncompressed zip file without
    gaps, with flat arrays of unsigned integers. Checksums in the zip file are not compared, because
    the sha256 of the whole shard has already been compared.
    """

    def __init__(self, file: str, member: str, data: bytes) -> None:
        self._file = file
        self._member = member
        self._data = data

    def arrays(self) -> dict[str, IdArray]:
        arrays: dict[str, IdArray] = {}
        try:
            for name, start, stop in self._entries():
                if name in arrays:
                    raise self._error(f"one array {name}", "two")
                arrays[name] = self._read_array(name, start, stop)
        except struct.error as error:
            raise self._error("a whole zip file", str(error)) from error
        return arrays

    def _entries(self) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each array, and the start and stop of its .npy file in the zip file."""
        data, end = self._data, len(self._data) - _ZIP_END.size
        signature, count, count_in_all, size, directory, comment = _ZIP_END.unpack_from(data, end)
        if (signature, count, directory + size, comment) != (b"PK\5\6", count_in_all, end, 0):
            raise self._error("a zip file with its directory at the end", f"{data[end:]!r}")
        start, entry = 0, directory
        for _ in range(count):
            signature, flags, method, stored, size, *lengths, offset = _ZIP_ENTRY.unpack_from(
                data, entry
            )
            name = data[entry + _ZIP_ENTRY.size :][: lengths[0]].decode("ascii", "replace")
            member_signature, *member_lengths = _ZIP_MEMBER.unpack_from(data, start)
            found = (signature, member_signature, flags, method, stored, offset)
            if found != (b"PK\1\2", b"PK\3\4", 0, 0, size, start):
                raise self._error(f"{name!r} stored uncompressed at byte {start}", f"{found}")
            start += _ZIP_MEMBER.size + sum(member_lengths)
            stop = start + size
            if stop > directory:
                raise self._error(f"{name!r} within {directory} bytes", f"{stop}")
            yield name.removesuffix(".npy"), start, stop
            start = stop
            entry += _ZIP_ENTRY.size + sum(lengths)
        if (start, entry) != (directory, end):
            raise self._error(f"arrays in all {directory} bytes", f"arrays in {start} bytes")

    def _read_array(self, name: str, start: int, stop: int) -> IdArray:
        npy = _NPY_ARRAY.match(self._data, start, stop)
        if npy is None or int.from_bytes(npy["header_bytes"], "little") != len(npy["header"]):
            found = self._data[start:stop][:128]
            raise self._error(f"a flat array of unsigned integers as {name}", f"{found!r}")
        dtype, count = np.dtype(npy["dtype"].decode()), int(npy["count"])
        if npy.end() + count * dtype.itemsize != stop:
            raise self._error(
                f"{count * dtype.itemsize:,} bytes of {name}", f"{stop - npy.end():,} bytes"
            )
        values = np.frombuffer(self._data, dtype, count, npy.end())
        if dtype.itemsize == 4 and values.max(initial=0) > MAX_ID:
            raise self._error(f"at most {MAX_ID} in {name}", f"{values.max()}")
        return values

    def _error(self, expected: str, found: str) -> DatasetFileError:
        return DatasetFileError(self._file, f"{expected} in {self._member}", found)
