"""Fuzzing targets: archives of corpora, plain and compressed, and shards with their npz members."""

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
from backports import zstd

from data_pipeline.arrays import FieldArrays
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.corpora.corpus import read_whole
from data_pipeline.dataset.manifest_header import ShardInfo
from data_pipeline.dataset.samples import read_samples, write_samples
from data_pipeline.dataset.shards import IDS_SUFFIX, ShardBlock, pack_shard, unpack_shard
from data_pipeline.errors import CorpusError, DatasetError
from support.files.tar_by_hand import ZEROS, entry, header, pax
from support.fuzz.mutation import NUMBERS, mutate_bytes, reseal
from support.fuzz.target import Target

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, 1, mtime=0),
    "tar.bz2": lambda data: bz2.compress(data, 1),
    "tar.xz": lambda data: lzma.compress(data, preset=0),
    "tar.zst": lambda data: zstd.compress(data, 1),
}
COLUMNS = {"source": "en.txt", "target": "fr.txt", "score": "score"}
NAMES = (
    *(b"0.en.txt", b"0.fr.txt", b"0.score", b"1.en.txt", b"1.jpg", b"a/b.en.txt", b"./0.EN.TXT"),
    *(b"../0.en.txt", b"/0.en.txt", b"a//0.en.txt", b"", b".", b"\xff.en.txt", b"a\\0.en.txt"),
    *(b"0.pkl", b"\x1b]0;x\x07.en.txt", b"x" * 100, b"0", b".en.txt", b"a\nb.en.txt"),
)
SIZES = (
    *(b"%011o\0" % n for n in (0, 5, 512, 2**33 - 1)),
    b"\x80" + b"\xff" * 11,
    b" " * 12,
    b"-1",
)
SCORES = (b"0.5", b"nan", b"1e999", b"", b"9" * 5_000, b"\xff", b"0x1")


def tar_targets() -> list[Target]:
    """Return a target per compression, with changes before and after the compression."""
    return [
        Target(
            name,
            f"`.{name}` corpus: names, sizes, types, PAX records, bytes"
            + (", also of the compressed file" if name != "tar" else ""),
            _maker(compress),
            _read_corpus,
            (CorpusError,),
        )
        for name, compress in COMPRESSIONS.items()
    ]


def _pairs(count: int, tar_format: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for number in range(count):
            for suffix, data in (("en.txt", b"a b\n"), ("fr.txt", b"c d\n"), ("score", b"0.5")):
                info = tarfile.TarInfo(f"{'long/' * 30 * (number == 1)}{number}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SEEDS = tuple(_pairs(3, f) for f in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))


def _maker(compress: Callable[[bytes], bytes]) -> Callable[[Random], bytes]:
    def make(random: Random) -> bytes:
        tar = _by_hand(random) if random.random() < 0.4 else random.choice(SEEDS)
        if random.random() < 0.7:
            tar = mutate_bytes(random, tar, random.choice(SEEDS))
            tar = reseal(tar) if random.random() < 0.7 else tar
        data = compress(tar)
        if compress is not bytes and random.random() < 0.4:
            data = mutate_bytes(random, data, compress(random.choice(SEEDS)))
        return data

    return make


def _by_hand(random: Random) -> bytes:
    """Return an archive of unusual members with correct checksums."""
    parts = []
    for _ in range(random.randrange(1, 8)):
        name = random.choice(NAMES)
        data = random.choice((*SCORES, b"a b\n", b"\0" * 600, b"\r\n\r\n"))
        kind = random.choice((b"0", b"0", b"0", b"0", b"\0", bytes([random.randrange(256)])))
        if random.random() < 0.3:
            number = random.choice(NUMBERS)
            keyword = random.choice((b"path", b"size", b"GNU.sparse.map", b"comment", b"mtime"))
            value = random.choice((name, b"%d" % number, b""))
            parts.append(pax((keyword, value), kind=random.choice((b"x", b"x", b"g", b"L"))))
        if random.random() < 0.2:
            parts.append(header(name[:100], random.choice(SIZES), kind) + data)
        else:
            parts.append(entry(name[:100], data, kind))
    return b"".join(parts) + random.choice((ZEROS, ZEROS, ZEROS, b"", bytes(512), bytes(100_000)))


def _read_corpus(data: bytes, folder: Path) -> None:
    file = folder / "corpus"
    file.write_bytes(data)
    corpus = PairCorpusConfig.model_validate(
        {"files": (str(file),), "format": "webdataset", "columns": COLUMNS, "min_score": 0.1}
    )
    whole = read_whole(corpus, mirror=None, cache=folder)
    for texts in whole.texts:
        assert len(texts) == 2, texts
        assert not set("\n\r\t") & set("".join(texts)), texts


def _block(key: str, sequences: list[list[int]]) -> ShardBlock:
    ids = np.array([number for sequence in sequences for number in sequence], dtype=np.int32)
    field = FieldArrays(ids, np.array([len(s) for s in sequences], dtype=np.int32))
    text = b"a sentence\n" * len(sequences)
    return ShardBlock(key, {"src": text, "tgt": text}, {"src": field, "tgt": field})


SHARD = pack_shard([_block("00", [[5, 3], [70_000, 6, 3]]), _block("01", [[7, 3]])])
SUFFIXES = [IDS_SUFFIX, "src.txt", "tgt.txt"]


def shard_target() -> Target:
    """Return a shard whose size and hash agree with the manifest; everything else may be wrong."""
    return Target(
        "shard",
        "shard of a dataset: the tar file, and npz members in a tar file that is right",
        _make_shard,
        _read_shard,
        (DatasetError,),
    )


def _make_shard(random: Random) -> bytes:
    if random.random() < 0.3:
        return reseal(mutate_bytes(random, SHARD, SHARD))
    samples = read_samples("seed", SHARD, SUFFIXES, SUFFIXES)
    key = random.choice(list(samples))
    suffix = random.choice((IDS_SUFFIX, IDS_SUFFIX, IDS_SUFFIX, "src.txt"))
    other = samples["00"][IDS_SUFFIX]
    samples[key][suffix] = mutate_bytes(random, samples[key][suffix], other)
    return write_samples(samples.items())


def _read_shard(data: bytes, folder: Path) -> None:
    info = ShardInfo(
        name="shards/x.tar",
        bytes=len(data),
        sha256="0" * 64,
        corpus=0,
        pairs=3,
        first_pair=0,
        tokens={"src": 7, "tgt": 7},
    )
    blocks = unpack_shard(data, info)
    again = unpack_shard(
        packed := pack_shard(blocks), info.model_copy(update={"bytes": len(packed)})
    )
    for block, other in zip(blocks, again, strict=True):
        assert block.texts == other.texts
        assert sum(len(text) for text in block.texts.values()) <= len(data)
