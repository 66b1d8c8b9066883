"""A dataset of 10⁵ shards behind a slow and faulty web server: manifest, requests, stalls, cache.

    manifest   CPU seconds and MB that a process needs to load it, as JSON and as columns
    requests   requests per shard when all data workers of a node read the same windows
    stalls     share of the time of training in which no window is ready, after the first one, with
               one data worker, whose shards are fetched one after another or ahead
    adds       CPU milliseconds per add to a shard cache of 50,000 files

The server answers after 50 ms, and 1 % of its answers are errors. Only the shards of the windows
that are read exist; the others have invented hashes. Times depend on the load of this machine.

    .venv/bin/python benchmarks/data_plane/many_shards.py [--measure NAMES] [--shards N]
"""

import gc
import hashlib
import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.support.command_line import benchmark_parser, names_from, parse_arguments
from benchmarks.support.datasets import prepared_recipe
from cluster.data.streams import WINDOWS_AHEAD
from cluster.recipe import Recipe
from data_pipeline.batching.window import WindowReader, open_mixture
from data_pipeline.dataset.manifest import Manifest
from data_pipeline.dataset.shards import ShardBlock, pack_shard, unpack_shard
from data_pipeline.storage.shard_cache import ShardCache
from data_pipeline.storage.store import DatasetStore, RemoteStore, open_store
from trainer.process.host_memory import resident_bytes

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from support.files.faulty_server import Fault, FaultyServer

LATENCY_SECONDS = 0.05
ERROR_SHARE = 0.01
SEED = 2  # determines the requests that fail
WINDOWS = 20
WINDOW_SHARDS = 16
WINDOW_SECONDS = 0.5  # simulated training time of a window
WORKERS = 4
CACHED_FILES, ADDS = 50_000, 2_000
Figures = dict[str, float]


class SlowServer(FaultyServer):
    """Web server that answers after `LATENCY_SECONDS`."""

    def note_request(self, name: str) -> Fault | None:
        time.sleep(LATENCY_SECONDS)
        return super().note_request(name)


def make_dataset(folder: Path, shards: int) -> Recipe:
    """Write a dataset with a list of shards in JSON; only the shards of some windows exist."""
    overrides = [f"data.dataset={folder}", f"batching.window_shards={WINDOW_SHARDS}"]
    recipe = prepared_recipe("phrasebook", overrides)
    manifest = Manifest.load(open_store(folder))
    first = manifest.shards[0]
    block = unpack_shard((folder / first.name).read_bytes(), first)[0]
    content = json.loads((folder / "manifest.json").read_bytes())
    pairs = block.pairs
    tokens = {name: len(field.ids) for name, field in block.fields.items()}
    content["shards"] = [
        {
            "name": f"shards/many-{number:06}.tar",
            "bytes": 0,
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
            "corpus": 0,
            "pairs": pairs,
            "first_pair": number * pairs,
            "tokens": tokens,
        }
        for number in range(shards)
    ]
    content["corpora"][0] |= {"read": shards * pairs, "kept": shards * pairs}
    for counts in content["lengths"].values():
        counts[1] += shards * pairs - sum(counts)
    (folder / "manifest.json").write_text(json.dumps(content))
    mixture = open_mixture(Manifest.load(open_store(folder)), recipe.data_settings)
    windows = range(min(WINDOWS, mixture.windows_per_epoch))
    for number in {part.shard for window in windows for part in mixture.slices(0, window)}:
        entry = content["shards"][number]
        data = pack_shard([ShardBlock(f"{number:06}", block.texts, block.fields)])
        (folder / entry["name"]).write_bytes(data)
        entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(content))
    return recipe


def load_manifest(folder: Path) -> Figures:
    """Load a manifest in this process, and return its cost."""
    gc.collect()
    before, start = resident_bytes(), time.process_time()
    manifest = Manifest.load(open_store(folder))
    seconds = time.process_time() - start
    gc.collect()
    megabytes = (resident_bytes() - before) / 1e6
    return {"shards": manifest.shard_count, "CPU seconds": seconds, "MB kept": megabytes}


def measure_manifest(folder: Path, recipe: Recipe, scratch: Path) -> dict[str, Figures]:
    Manifest.load(open_store(folder)).save_new(scratch)
    context = multiprocessing.get_context("spawn")
    figures = {}
    for form, place in (("JSON", folder), ("columns", scratch)):
        with context.Pool(1) as pool:
            figures[form] = pool.apply(load_manifest, [place])
    return figures


def open_reader(server: FaultyServer, recipe: Recipe, cache: Path) -> WindowReader:
    """Return the reader of a data worker with the shard cache of its node."""
    store = RemoteStore(server.url, ShardCache(cache, 10**10), (0.1,) * 5)
    return WindowReader(store, Manifest.load(open_store(server.folder)), recipe.data_settings)


def measure_requests(folder: Path, recipe: Recipe, scratch: Path) -> dict[str, Figures]:
    with SlowServer(folder) as server, ThreadPoolExecutor(WORKERS) as pool:
        server.fail_randomly(
            ERROR_SHARE, SEED, (Fault.UNAVAILABLE, Fault.TRUNCATED, Fault.BIT_FLIP)
        )
        readers = [open_reader(server, recipe, scratch) for _ in range(WORKERS)]
        list(pool.map(lambda reader: [reader.layout(0, w) for w in range(WINDOWS)], readers))
        shards, requests = len(server.requests), server.requests.total()
        figures = {
            "shards": shards,
            "failed": server.faults.total(),
            "per shard": requests / shards,
        }
    return {f"{WORKERS} workers": figures}


def measure_stalls(folder: Path, recipe: Recipe, scratch: Path) -> dict[str, Figures]:
    figures = {}
    for order in ("one after another", "ahead"):
        with SlowServer(folder) as server, ThreadPoolExecutor(1) as worker:
            reader = open_reader(server, recipe, scratch / order)
            if order == "one after another":
                reader._store.read_many = partial(DatasetStore.read_many, reader._store)
            windows = [worker.submit(reader.layout, 0, w) for w in range(WINDOWS_AHEAD)]
            waits = []
            for window in range(WINDOWS):
                following = min(window + WINDOWS_AHEAD, WINDOWS - 1)
                windows.append(worker.submit(reader.layout, 0, following))
                start = time.monotonic()
                windows[window].result()
                waits.append(time.monotonic() - start)
                time.sleep(WINDOW_SECONDS)
        stall = sum(waits[1:])
        share = stall / (stall + WINDOW_SECONDS * (WINDOWS - 1))
        figures[order] = {"share of stalls": share, "first window, seconds": waits[0]}
    return figures


def measure_adds(folder: Path, recipe: Recipe, scratch: Path) -> dict[str, Figures]:
    cache = ShardCache(scratch, 10**9)
    for number in range(CACHED_FILES):
        (scratch / hashlib.sha256(b"%d" % number).hexdigest()).write_bytes(b"x")
    cache.add(hashlib.sha256(b"first").hexdigest(), b"x")
    start = time.process_time()
    for number in range(ADDS):
        cache.add(hashlib.sha256(b"new %d" % number).hexdigest(), b"x")
    return {"": {"CPU milliseconds": (time.process_time() - start) / ADDS * 1000}}


MEASUREMENTS: dict[str, Callable[[Path, Recipe, Path], dict[str, Figures]]] = {
    "manifest": measure_manifest,
    "requests": measure_requests,
    "stalls": measure_stalls,
    "adds": measure_adds,
}


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument(
        "--measure", type=names_from(MEASUREMENTS), default=list(MEASUREMENTS), metavar="NAMES"
    )
    options = parse_arguments(parser, smoke="--shards 400 --measure manifest,requests")
    with TemporaryDirectory(prefix="many-shards-") as scratch:
        recipe = make_dataset(Path(scratch) / "dataset", options.shards)
        for name in options.measure:
            (Path(scratch) / name).mkdir()
            figures = MEASUREMENTS[name](Path(scratch) / "dataset", recipe, Path(scratch) / name)
            for case, values in figures.items():
                text = ", ".join(f"{what} {value:,.3f}" for what, value in values.items())
                print(f"{name} {case}: {text}")


if __name__ == "__main__":
    main()
