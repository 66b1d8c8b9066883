"""The other formats of data_plane.py, run by it in an environment of their own.

    pairs ──write──▶ webdataset: one pair a sample; litdata: one pair an item of optimised chunks
    files ──read──▶ lists of decoded pairs, and the seconds that the last of two passes took

As their users have it: WebDataset's `.decode()` on two texts and two .npy arrays a sample,
LitData's StreamingDataset on a tuple of two arrays, iterated directly or through its loader.
Both are read in the order of their files; neither has to shuffle, sort or pad.

    .bench-peers/bin/python benchmarks/data_plane_peers.py {write,read} PEER FOLDER
"""

import argparse
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

PAIRS_PER_LIST = 64
PAIRS_PER_TAR = 10_000
LITDATA_CHUNK = "64MB"  # the size that LitData's documentation uses


def pairs_of(folder: Path) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Source, target and their ids, from the files that data_plane.py has written."""
    columns: list[Iterable] = [
        (folder / f"{side}.txt").read_text().split("\n")[:-1] for side in ("src", "tgt")
    ]
    with np.load(folder / "ids.npz") as arrays:
        for side in ("src", "tgt"):
            ends = np.cumsum(arrays[f"{side}.lengths"])
            columns.append(np.split(arrays[f"{side}.ids"], ends[:-1]))
    yield from zip(*columns, strict=True)


def write_webdataset(folder: Path) -> None:
    import webdataset

    (folder / "webdataset").mkdir()
    pattern = str(folder / "webdataset" / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=PAIRS_PER_TAR, verbose=0) as writer:
        for number, (source, target, source_ids, target_ids) in enumerate(pairs_of(folder)):
            writer.write(
                {
                    "__key__": f"{number:08d}",
                    "src.txt": source,
                    "tgt.txt": target,
                    "src.npy": source_ids,
                    "tgt.npy": target_ids,
                }
            )


def write_litdata(folder: Path) -> None:
    from litdata.streaming import Cache

    cache = Cache(str(folder / "litdata"), chunk_bytes=LITDATA_CHUNK)
    for number, (_, _, source_ids, target_ids) in enumerate(pairs_of(folder)):
        cache._add_item(number, (source_ids, target_ids))
    cache.done()
    cache.merge(1)


def open_webdataset(folder: Path) -> Iterable:
    import webdataset

    tars = sorted(map(str, (folder / "webdataset").glob("*.tar")))
    return webdataset.WebDataset(tars, shardshuffle=False).decode()


def open_litdata(folder: Path) -> Iterable:
    from litdata import StreamingDataset

    return StreamingDataset(str(folder / "litdata"), shuffle=False)


def open_litdata_loader(folder: Path) -> Iterable:
    from litdata import StreamingDataLoader

    return StreamingDataLoader(
        open_litdata(folder), batch_size=PAIRS_PER_LIST, num_workers=0, collate_fn=list
    )


def lists_of_pairs(samples: Iterable) -> Iterator[list]:
    """Lists as a loader with num_workers=0 would make them, by the shortest way."""
    pairs = []
    for pair in samples:
        pairs.append(pair)
        if len(pairs) == PAIRS_PER_LIST:
            yield pairs
            pairs = []
    yield pairs


READERS = {
    "webdataset": lambda folder: lists_of_pairs(open_webdataset(folder)),
    "litdata": lambda folder: lists_of_pairs(open_litdata(folder)),
    "litdata-loader": open_litdata_loader,
}
WRITERS = {"webdataset": write_webdataset, "litdata": write_litdata}


def read(peer: str, folder: Path) -> dict[str, float]:
    """Pairs and seconds of a pass over all, after one that warms up whatever is lazy."""
    torch.set_num_threads(1)
    for _ in range(2):
        started = time.perf_counter()
        pairs = sum(map(len, READERS[peer](folder)))
        seconds = time.perf_counter() - started
    return {"pairs": pairs, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "read"))
    parser.add_argument("peer", choices=READERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--core", type=int, help="the one core to run on")
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    if arguments.action == "write":
        WRITERS[arguments.peer](arguments.folder)
    else:
        print(json.dumps(read(arguments.peer, arguments.folder)))


if __name__ == "__main__":
    main()
