"""The peers' formats of data_plane.py, which runs this script in a separate environment.

    pairs ──write──▶ WebDataset: one pair a sample; LitData: one pair an item of optimised chunks
    files ──read──▶ lists of decoded pairs ──▶ their number and the seconds, as JSON

    webdataset-npy    the texts as .txt, the ids as .npy: what its users have
    webdataset-json   all in one .json: the fastest of the usual kinds of samples
    litdata           a tuple of two arrays of ids, without texts; StreamingDataset by itself
    litdata-loader    the same through StreamingDataLoader

Where there is a choice, it is made in their favour: files in their order, no shuffling, sorting or
padding, and no fractions of seconds in the tars (each would cost a further header).

    .bench-peers/bin/python benchmarks/data_plane/peers.py {write,read} FORMAT FOLDER
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

PAIRS_PER_LIST = 64
PAIRS_PER_TAR = 10_000
LITDATA_CHUNK = "64MB"
WARM_UP_LISTS = 100
MINIMUM_SECONDS = 2.0


def timed(one_pass: Callable[[], int]) -> dict[str, float]:
    """Time complete passes for at least MINIMUM_SECONDS; a pass returns its number of pairs."""
    count, started, cpu_before = 0, time.perf_counter(), time.process_time()
    while (seconds := time.perf_counter() - started) < MINIMUM_SECONDS:
        count += one_pass()
    return {
        "count": count,
        "seconds": seconds,
        # lower than the wall time if other processes use the core
        "cpu_seconds": time.process_time() - cpu_before,
    }


def stored_pairs(folder: Path) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Return sources, targets and their ids from the files that data_plane.py has written."""
    columns: list[Iterable] = [
        (folder / f"{side}.txt").read_text().split("\n")[:-1] for side in ("src", "tgt")
    ]
    with np.load(folder / "ids.npz") as arrays:
        for side in ("src", "tgt"):
            ends = np.cumsum(arrays[f"{side}.lengths"])
            columns.append(np.split(arrays[f"{side}.ids"], ends[:-1]))
    yield from zip(*columns, strict=True)


def stored_ids(folder: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _, _, source_ids, target_ids in stored_pairs(Path(folder)):
        yield source_ids, target_ids


def npy_sample(source: str, target: str, source_ids: np.ndarray, target_ids: np.ndarray) -> dict:
    return {"src.txt": source, "tgt.txt": target, "src.npy": source_ids, "tgt.npy": target_ids}


def json_sample(source: str, target: str, source_ids: np.ndarray, target_ids: np.ndarray) -> dict:
    ids = {"src.ids": source_ids.tolist(), "tgt.ids": target_ids.tolist()}
    return {"json": {"src": source, "tgt": target, **ids}}


SAMPLES = {"webdataset-npy": npy_sample, "webdataset-json": json_sample}


def write_webdataset(folder: Path, name: str) -> None:
    from webdataset import ShardWriter

    (folder / name).mkdir()
    pattern = str(folder / name / "%05d.tar")
    with ShardWriter(pattern, maxcount=PAIRS_PER_TAR, verbose=0, mtime=0) as writer:
        for number, pair in enumerate(stored_pairs(folder)):
            writer.write({"__key__": f"{number:08d}", **SAMPLES[name](*pair)})


def write_litdata(folder: Path, name: str) -> None:
    for variable in ("DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER"):
        os.environ[variable] = str(folder / "litdata-work")
    from litdata import optimize

    optimize(
        stored_ids,
        [str(folder)],
        output_dir=str(folder / name),
        chunk_bytes=LITDATA_CHUNK,
        num_workers=1,
        verbose=False,
    )


def read_webdataset(folder: Path, name: str) -> Iterator[list]:
    from webdataset import WebDataset

    tars = sorted(map(str, (folder / name).glob("*.tar")))
    return lists_of_pairs(WebDataset(tars, shardshuffle=False).decode())


def read_litdata(folder: Path, name: str) -> Iterator[list]:
    from litdata import StreamingDataset

    return lists_of_pairs(StreamingDataset(str(folder / "litdata"), shuffle=False))


def read_litdata_loader(folder: Path, name: str) -> Iterator[list]:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder / "litdata"), shuffle=False)
    loader = StreamingDataLoader(dataset, batch_size=PAIRS_PER_LIST, num_workers=0, collate_fn=list)
    return iter(loader)


def lists_of_pairs(samples: Iterable[Any]) -> Iterator[list]:
    """Yield lists of pairs with the least overhead."""
    # Do not use islice, because it would call iter() for each list, which rewinds a
    # StreamingDataset.
    pairs = []
    for pair in samples:
        pairs.append(pair)
        if len(pairs) == PAIRS_PER_LIST:
            yield pairs
            pairs = []
    yield pairs


WRITERS = {
    "webdataset-npy": write_webdataset,
    "webdataset-json": write_webdataset,
    "litdata": write_litdata,
}
READERS = {
    "webdataset-npy": read_webdataset,
    "webdataset-json": read_webdataset,
    "litdata": read_litdata,
    "litdata-loader": read_litdata_loader,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "read"))
    parser.add_argument("format", choices=READERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--core", type=int, help="the one core to read on")
    arguments = parser.parse_args()
    folder, name = arguments.folder, arguments.format
    if arguments.action == "write":
        WRITERS[name](folder, name)
        return
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    import torch

    torch.set_num_threads(1)
    for _ in islice(READERS[name](folder, name), WARM_UP_LISTS):
        pass
    print(json.dumps(timed(lambda: sum(map(len, READERS[name](folder, name))))))


if __name__ == "__main__":
    main()
