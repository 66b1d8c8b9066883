"""Small files that can make their readers allocate gigabytes, such as decompression bombs.

As a program with the arguments FOLDER and "write", this module writes the files. With "read", it
reads each file like `prepare`, after harmless files of the same kinds. It prints a line for each:
its name, the maximum memory in bytes of this process or a child until then, and the result.
"""

import io
import lzma
import resource
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from backports import zstd

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_pipeline.config.corpus import CorpusConfig
from data_pipeline.config.pair import PairCorpusConfig
from data_pipeline.config.text import TextCorpusConfig
from data_pipeline.corpora import parquet as parquet_file
from data_pipeline.corpora.corpus import CorpusReader, read_whole
from data_pipeline.corpora.formats import parse
from data_pipeline.errors import CorpusError
from data_pipeline.storage import locations
from support.files.parquet_by_hand import compressed_value, empty_rows, repeated_rows
from support.files.tar_by_hand import ZEROS, entry, header, pax

MEGABYTE = 1_000_000
BLANK = b" " * MEGABYTE
INNOCENT = b"a sentence of some words\n" * 1000
SHORT_LINES = b"a sentence of some words\n" * 40_000


def gzipped(parts: Iterator[bytes]) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(map(packer.compress, parts)) + packer.flush()


def xz(parts: Iterator[bytes]) -> bytes:
    """Compress with the dictionary of xz -9, which a bomb fills completely."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 * 2**20}]
    packer = lzma.LZMACompressor(filters=filters)
    return b"".join(map(packer.compress, parts)) + packer.flush()


def zst(parts: Iterator[bytes]) -> bytes:
    packer = zstd.ZstdCompressor(1)
    return b"".join(map(packer.compress, parts)) + packer.flush()


COMPRESSORS = {"gz": gzipped, "xz": xz, "zst": zst}
# Only the header of a frame with a window of 2 GB (RFC 8878, section 3.1.1.1.2).
ZST_OF_LARGE_WINDOW = b"\x28\xb5\x2f\xfd" + bytes([0, (31 - 10) << 3]) + bytes(100)


def xz_of_dictionary() -> bytes:
    """Return a line, compressed in a block whose header requires a dictionary of a gigabyte."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    small = lzma.compress(b"x\n", filters=filters)
    header = bytearray(small[12:20])
    header[4] = 36  # 2^30 bytes, see section 5.3.1 of the xz file format
    return small[:12] + header + zlib.crc32(header).to_bytes(4, "little") + small[24:]


def long_scores(count: int) -> Iterator[bytes]:
    """Yield samples whose scores have 10 MB."""
    for number in range(count):
        yield entry(b"%d.txt" % number, b"a")
        yield header(b"%d.score" % number, 10 * MEGABYTE - 10 * MEGABYTE % 512)
        yield from [bytes(512 * 100)] * (10 * MEGABYTE // 51200)
        yield bytes((10 * MEGABYTE - 10 * MEGABYTE % 512) % 51200)


def long_keys(count: int, length: int) -> Iterator[bytes]:
    """Yield samples whose keys have this number of characters."""
    for number in range(count):
        yield pax((b"path", (b"%07d" % number).ljust(length - 4, b"k") + b".txt"))
        yield entry(b"x.txt", b"")


def fill(folder: Path, name: str, make: Callable[[], bytes]) -> str:
    """Return the path of a file; write the file if it does not exist."""
    if not (folder / name).exists():
        (folder / name).write_bytes(make())
    return str(folder / name)


def said_of(corpus: CorpusConfig, *, held_out: bool = False) -> str:
    """Read a corpus like `prepare`; return the error, or the number of examples."""
    try:
        if held_out:
            return f"read {len(read_whole(corpus, mirror=None, cache=Path('/none')).texts):,}"
        chunks = CorpusReader(corpus, mirror=None, cache=Path("/none")).chunks(20_000)
        return f"read {sum(len(parse(chunk)) for chunk in chunks):,}"
    except CorpusError as error:
        return str(error)


def parquet(rows: int, characters: int) -> bytes:
    """Return a file with one text of this length, to which this number of rows refer."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    indices = pa.array([0] * rows, pa.int32())
    text = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * characters]))
    buffer = io.BytesIO()
    table = pa.table({"text": text})
    # Statistics would contain the whole text, and computing them takes seconds.
    write_table(table, buffer, compression="zstd", store_schema=False, write_statistics=False)
    return buffer.getvalue()


PARQUET_BY_HAND: dict[str, Callable[[], bytes]] = {
    "page": lambda: compressed_value(b" " * 300 * MEGABYTE),
    "rows": lambda: repeated_rows(b"a sentence", 2_000_000_000),
    "lengths": lambda: empty_rows(2_000_000_000, rows_of_footer=2_000_000_000),
    "lengths lie": lambda: empty_rows(2_000_000_000, rows_of_footer=1),
}


def cases(folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield harmless files, then the files for which the test bounds the memory."""

    def lines(name: str, kind: str, parts: Callable[[], Iterator[bytes]]) -> str:
        return fill(folder, f"{name}.{kind}", lambda: COMPRESSORS[kind](parts()))

    def tar(name: str, samples: Callable[[], Iterator[bytes]]) -> str:
        return fill(folder, f"{name}.tar.zst", lambda: zst(chain(samples(), [ZEROS])))

    def documents(path: str, file_format: str, **columns: str) -> Callable[[], str]:
        settings = {"min_score": 0.0} if "score" in columns else {}
        corpus = TextCorpusConfig(files=(path,), format=file_format, columns=columns, **settings)
        return lambda: said_of(corpus)

    def pairs(path: str) -> Callable[[], str]:
        return lambda: said_of(PairCorpusConfig(source=path, target=path))

    def parquet_of(name: str, rows: int, characters: int) -> Callable[[], str]:
        path = fill(folder, f"{name}.parquet", lambda: parquet(rows, characters))
        return documents(path, "parquet")

    def json_of(name: str, value: str, count: int) -> Callable[[], str]:
        line = b'{"text": "", "x": [%b]}\n'
        path = fill(folder, f"{name}.jsonl", lambda: line % b",".join([value.encode()] * count))
        return documents(path, "jsonl")

    for kind in COMPRESSORS:
        yield f"innocent {kind}", pairs(lines("innocent", kind, lambda: iter([INNOCENT] * 100)))
    yield "innocent parquet", parquet_of("innocent", 1000, 7_000)
    yield "innocent jsonl", json_of("innocent", "0", 500_000)

    for kind in COMPRESSORS:
        yield f"one line {kind}", pairs(lines("line", kind, lambda: iter([BLANK] * 100)))
        short = lines("lines", kind, lambda: iter([SHORT_LINES] * 30))
        yield f"short lines {kind}", pairs(short)
        corpus = TextCorpusConfig(files=(short,), format="text")
        yield f"held out {kind}", lambda corpus=corpus: said_of(corpus, held_out=True)
    yield "zst window", pairs(fill(folder, "window.zst", lambda: ZST_OF_LARGE_WINDOW))
    yield "xz dictionary", pairs(fill(folder, "dictionary.xz", xz_of_dictionary))
    scores = tar("scores", lambda: long_scores(40))
    yield "scores", documents(scores, "webdataset", text="txt", score="score")
    yield (
        "long keys",
        documents(tar("long", lambda: long_keys(2, 60_000)), "webdataset", text="txt"),
    )
    yield "parquet dictionary", parquet_of("dictionary", 200, 5_000_000)
    yield "parquet value", parquet_of("value", 1, 300_000_000)
    for name, make in PARQUET_BY_HAND.items():
        yield f"parquet {name}", documents(fill(folder, f"{name}.parquet", make), "parquet")
    for name, value in (("lists", "[]"), ("objects", "{}"), ("strings", '"ab"')):
        yield f"json {name}", json_of(name, value, 3_000_000)


def main(folder: Path, task: str) -> None:
    # low, so that small files can be bombs
    locations.EXPANSION_FREE_BYTES = 5 * MEGABYTE
    parquet_file.EXPANSION_FREE_BYTES = 10 * MEGABYTE
    parquet_file.MEMORY_BYTES = 150 * MEGABYTE
    for name, read in cases(folder):
        if task == "read":
            said = read()
            usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            peak_bytes = max(usage.ru_maxrss for usage in usages) * 1024
            print(name, peak_bytes, said, sep="\t", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
