"""How fast pairs are read from the disk into micro-batches, compared with WebDataset and LitData.

One run, the same pairs: Multi30k, repeated. Each measurement is a separate process on one core.
Measurements alternate, so that a drift of the machine's speed affects all of them. A measurement
reads whole epochs for at least 2 seconds, after a warm-up; files are in the page cache, but no
cache contains windows.

    transloom N       prepared shards → verified → windows → micro-batches of N tokens
    … sampled         the same with another segmentation of every sentence, alpha 0.1
    … encoded         the sentences of the shards → best segmentation, which `prepare` stores
    webdataset, litdata    pairs one by one: decoded, neither batched nor sorted
    through Ray N     a data worker → a rank's steps of 8 micro-batches of N tokens; all cores;
                      target tokens, in arrays that the rank uses without copying them

The peers run in a separate environment, which is created if it is missing.

    .venv/bin/python benchmarks/data_plane/data_plane.py [--mirror FOLDER] [--json]

mirror: a folder with the corpus, as in `transloom prepare multi30k-ende data.mirror=FOLDER`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.data_plane.peers import READERS as PEERS
from benchmarks.data_plane.peers import WRITERS, timed
from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import blocks_of, recipe_on_files
from benchmarks.support.environments import PEERS as ENVIRONMENTS
from benchmarks.support.environments import environment_with, peer_variables
from benchmarks.support.trainings import say
from cluster.data.streams import WorkerStreams
from cluster.data.worker_client import WorkerClient
from cluster.data.workers import DataWorkers
from cluster.health.watchdog import HeartbeatSender
from cluster.ray.session import ray_session
from cluster.recipe import Recipe, find_recipe, load_recipe
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from data_pipeline.batching.window import WindowReader
from data_pipeline.corpora.corpus import read_whole
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.preparation.prepare import prepare
from data_pipeline.storage.locations import cache_folder
from data_pipeline.tokenizers.tokenizer import load_tokenizers

HERE = Path(__file__).resolve().parent
PEERS_PACKAGES = ["torch==2.13.0", "torchvision", "numpy", "webdataset", "litdata==0.2.76"]
RECIPE = "multi30k-ende"
FIELDS = ("src", "tgt")
GOAL_PAIRS_PER_SECOND = 1_000_000
GOAL_OVER_LITDATA = 3.0
GOAL_TOKENS_PER_SECOND = 3_000_000

Measurement = dict[str, float]


def read_micro_batches(recipe: Recipe) -> Measurement:
    """Measure the pairs per second that are read into micro-batches."""
    store, manifest = open_dataset(recipe.data)
    reader = WindowReader(store, manifest, recipe.data_settings)
    epochs = count()

    def epoch() -> int:
        number, pairs = next(epochs), 0
        for window in range(reader.layout(number, 0).windows_per_epoch):
            micro_batches = len(reader.layout(number, window).units)
            fetched = reader.fetch(number, window, 0, micro_batches)
            pairs += sum(len(micro_batch.pair_ids) for micro_batch in fetched)
        return pairs

    reader.layout(next(epochs), 0)
    return timed(epoch)


def encode_text(recipe: Recipe) -> Measurement:
    """Measure the pairs per second that are read and encoded in blocks, without batching."""
    store, manifest = open_dataset(recipe.data)
    tokenizers = load_tokenizers(store, manifest)

    def epoch() -> int:
        for block in blocks_of(recipe):
            for field in FIELDS:
                tokenizers[field].encode_field(block.sentences(field))
        return manifest.pairs

    return timed(epoch)


def read_through_ray(recipe: Recipe) -> Measurement:
    """Measure the target tokens per second in the steps of a single rank, which is this process."""
    _, manifest = open_dataset(recipe.data)
    config = recipe.cluster
    with ray_session(None):
        workers = DataWorkers(
            recipe.data_settings,
            manifest.identity,
            cpus=config.cpus_per_data_worker,
            cache_bytes=config.data_memory_bytes,
        )
        workers.start(1)
        with HeartbeatSender(lambda: workers.actors):
            streams = WorkerStreams(
                WorkerClient(workers.handles, lambda notice: None),
                rank=0,
                ranks=1,
                slots=recipe.batching.micro_batches_per_step,
                steps_ahead=config.steps_ahead,
                bytes_ahead=config.data_memory_bytes,
            )
            steps = streams.open(Cursor())
            _tokens_of_epoch(steps)
            return timed(lambda: _tokens_of_epoch(steps))


def _tokens_of_epoch(steps: Iterator[RankStep]) -> int:
    """Count the target tokens of the steps up to the first step of the next epoch."""
    tokens = 0
    for step in steps:
        tokens += sum(micro_batch.tokens("tgt") for micro_batch in step.micro_batches)
        if step.next_cursor.epoch > step.cursor.epoch:
            break
    return tokens


SAMPLED = "tokenizer.sampling.alpha=0.1"
KILO, FOUR_KILO = (f"batching.max_tokens_per_micro_batch={size}" for size in (1024, 4096))
OURS: dict[str, tuple[Callable[[Recipe], Measurement], list[str]]] = {
    "transloom 1,024": (read_micro_batches, [KILO]),
    "transloom 4,096": (read_micro_batches, [FOUR_KILO]),
    "transloom 1,024 sampled": (read_micro_batches, [KILO, SAMPLED]),
    "transloom 4,096 sampled": (read_micro_batches, [FOUR_KILO, SAMPLED]),
    "transloom encoded": (encode_text, []),
    "through Ray 1,024": (read_through_ray, [KILO]),
    "through Ray 4,096": (read_through_ray, [FOUR_KILO]),
}


def make_dataset(folder: Path, mirror: str | None, pairs: int, pieces: int) -> None:
    """Repeat the corpus, prepare it, and write the prepared pairs in the formats of the peers."""
    data = load_recipe(find_recipe(RECIPE), corpus_overrides(RECIPE, mirror)).data
    text = read_whole(data.train[0], mirror=data.mirror, cache=cache_folder(data.cache))
    for field, sentences in zip(FIELDS, zip(*text.texts, strict=True), strict=True):
        lines = (sentence + "\n" for sentence in islice(cycle(sentences), pairs))
        (folder / f"repeated.{field}").write_text("".join(lines))
    recipe = recipe_on_files(folder / "repeated", pieces, [])
    prepare(recipe.data_settings, lambda progress: None)

    blocks = list(blocks_of(recipe))
    arrays = {}
    for field in FIELDS:
        (folder / f"{field}.txt").write_bytes(b"".join(block.texts[field] for block in blocks))
        ids = np.concatenate([block.fields[field].ids for block in blocks])
        arrays[f"{field}.ids"] = ids.astype(np.min_scalar_type(ids.max()))
        arrays[f"{field}.lengths"] = np.concatenate([b.fields[field].lengths for b in blocks])
    np.savez(folder / "ids.npz", allow_pickle=False, **arrays)


def run_measurement(
    name: str, folder: Path, pieces: int, core: int, python: Path | None
) -> Measurement:
    """Run one measurement in a separate process."""
    if name in PEERS:
        command = [str(python), str(HERE / "peers.py"), "read", name, str(folder)]
    else:
        command = [sys.executable, __file__, "--folder", str(folder), "--measure", name]
        command += ["--pieces", str(pieces)]
    command += ["--core", str(core)]
    environment = os.environ | (peer_variables() if name in PEERS else {})
    output = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout
    measurement: Measurement = json.loads(output.splitlines()[-1])
    return measurement


def measure_here(name: str, folder: Path, pieces: int, core: int) -> None:
    function, overrides = OURS[name]
    if function is not read_through_ray:
        os.sched_setaffinity(0, {core})
    recipe = recipe_on_files(folder / "repeated", pieces, overrides)
    print(json.dumps(function(recipe)))


def goals_of(rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return the quantities that have a goal, each with its value and its goal."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    prepared = min(medians["transloom 1,024"], medians["transloom 4,096"])
    through_ray = medians["through Ray 4,096"]
    goals = {
        "pairs/s": {"found": prepared, "goal": GOAL_PAIRS_PER_SECOND},
        "target tokens/s through Ray": {"found": through_ray, "goal": GOAL_TOKENS_PER_SECOND},
    }
    if litdata := [median for name, median in medians.items() if name.startswith("litdata")]:
        goals["times LitData"] = {"found": prepared / max(litdata), "goal": GOAL_OVER_LITDATA}
    return goals


def table(rates: dict[str, list[float]]) -> str:
    lines = [f"{'':24}{'median':>12}{'range':>26}"]
    for name, values in rates.items():
        unit = "target tokens/s" if "Ray" in name else "pairs/s"
        spread = f"{min(values):,.0f}–{max(values):,.0f}"
        lines.append(f"{name:24}{statistics.median(values):>12,.0f}{spread:>26}  {unit}")
    for name, numbers in goals_of(rates).items():
        found, goal = _short(numbers["found"]), _short(numbers["goal"])
        reached = "reached" if numbers["found"] >= numbers["goal"] else "MISSED"
        lines.append(f"{reached}: {found} {name}, goal {goal}")
    return "\n".join(lines)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, mirror=True)
    parser.add_argument("--pairs", type=int, default=290_000)
    parser.add_argument("--pieces", type=int, default=10_000, help="size of the vocabulary")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--peers-env", type=Path, default=ENVIRONMENTS / "data-plane")
    parser.add_argument("--torch-index", help="package index with torch for CPU, for the peers")
    parser.add_argument("--without-peers", action="store_true")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=OURS, help=argparse.SUPPRESS)
    arguments = parse_arguments(
        parser,
        smoke="--mirror phrasebook --pairs 2000 --pieces 1000 --repetitions 1 --without-peers",
    )
    if arguments.measure:
        measure_here(arguments.measure, arguments.folder, arguments.pieces, arguments.core)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say(f"preparing {arguments.pairs:,} pairs")
        make_dataset(folder, arguments.mirror, arguments.pairs, arguments.pieces)
        names, python = list(OURS), None
        if not arguments.without_peers:
            python = environment_with(PEERS_PACKAGES, arguments.peers_env, arguments.torch_index)
            for name in WRITERS:
                say(f"writing {name}")
                script = [str(python), str(HERE / "peers.py"), "write", name]
                environment = os.environ | peer_variables()
                subprocess.run(
                    [*script, str(folder)], check=True, stdout=subprocess.DEVNULL, env=environment
                )
            names += PEERS
        rates: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(arguments.repetitions):
            for name in names:
                found = run_measurement(name, folder, arguments.pieces, arguments.core, python)
                rates[name].append(found["count"] / found["seconds"])
                share = found["cpu_seconds"] / found["seconds"]
                say(f"{name}: {rates[name][-1]:,.0f}/s with {share:.0%} of a core")
    result = {"per_second": rates, "goals": goals_of(rates)}
    print(json.dumps(result) if arguments.json else table(rates))


if __name__ == "__main__":
    main()
