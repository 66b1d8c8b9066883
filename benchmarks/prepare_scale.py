"""`transloom prepare` on many pairs: the speed of each stage, and the memory of all processes.

    generated pairs as two text files ──prepare, in a separate process──▶ dataset
    process tree ──PSS of every process, 5 times a second──▶ maximum of the sum, and of one process

The pairs are generated but similar to real ones: 5 to 40 words of a Zipf vocabulary of 100,000; the
target has a word of another language for each word of the source, in reverse order. The same seed
gives the same text. PSS counts a page that n processes share as 1/n in each, so the sum is the
memory that the machine needs, without pages of the file cache that no process maps.

    .venv/bin/python benchmarks/prepare_scale.py [--pairs N] [--folder FOLDER] [--json]

It runs the code of the command, with BPE of 32,000 pieces and otherwise the recipes' defaults. Ten
million pairs take 12 GB in the folder, which is empty again at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import recipe_on_files
from benchmarks.support.trainings import say
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.progress import PrepareProgress

GIBIBYTE = 2**30
GOAL_BYTES = 2 * GIBIBYTE
SAMPLES_PER_SECOND = 5

PAIRS_PER_CHUNK = 100_000
WORDS = 100_000
SYLLABLES_GROW_AT = [50, 1_000, 20_000]  # numbers of the first words with 2, 3 and 4 syllables
SHORTEST, LONGEST = 5, 40  # minimum and maximum words of a sentence
CONSONANTS = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr"]
VOWELS = {"src": ["a", "e", "i", "o", "u", "ea"], "tgt": ["a", "ä", "e", "ö", "ü", "ei"]}


def make_words(side: str, rng: np.random.Generator) -> list[str]:
    """Return different words of 1 to 4 syllables; the first ones are frequent and short."""
    syllables = [c + v for c in CONSONANTS for v in VOWELS[side]]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        length = 1 + bisect(SYLLABLES_GROW_AT, len(words))
        words["".join(syllables[n] for n in rng.integers(0, len(syllables), length))] = None
    return list(words)


def line_parts(words: list[str]) -> np.ndarray:
    """Return words as bytes: at n, word n within a line; at n + WORDS, word n at a line's end."""
    parts = [f"{word} ".encode() for word in words] + [f"{word}\n".encode() for word in words]
    return np.array(parts, dtype=object)


def write_corpus(folder: Path, pairs: int, seed: int) -> None:
    """Write corpus.src and corpus.tgt."""
    rng = np.random.default_rng(seed)
    parts = {side: line_parts(make_words(side, rng)) for side in VOWELS}
    with (folder / "corpus.src").open("wb") as source, (folder / "corpus.tgt").open("wb") as target:
        for first in range(0, pairs, PAIRS_PER_CHUNK):
            lengths = rng.integers(SHORTEST, LONGEST + 1, min(PAIRS_PER_CHUNK, pairs - first))
            ends = np.cumsum(lengths)
            # The exponential of a uniform draw: word n has a share proportional to 1/n, which is
            # Zipf's law.
            words = np.exp(rng.random(ends[-1]) * np.log(WORDS)).astype(np.int64) - 1
            reversed_order = np.repeat(2 * ends - lengths - 1, lengths) - np.arange(ends[-1])
            for file, side, order in (
                (source, "src", slice(None)),
                (target, "tgt", reversed_order),
            ):
                numbers = words[order].copy()
                numbers[ends - 1] += WORDS
                file.write(b"".join(parts[side][numbers].tolist()))


def prepare_here(folder: Path, pieces: int, started: float) -> None:
    """Prepare, and print the times when each stage completed its first and its last part."""
    seen: set[tuple[str, bool]] = set()

    def report(progress: PrepareProgress) -> None:
        mark = (progress.stage, progress.done == progress.total)
        if mark not in seen:
            seen.add(mark)
            print(json.dumps([progress.stage, time.monotonic() - started]), flush=True)

    lengths = [f"data.max_{side}_length=256" for side in ("source", "target")]
    recipe = recipe_on_files(folder / "corpus", pieces, lengths)
    prepare(recipe.data_settings, report)
    print(json.dumps(["publish", time.monotonic() - started]))


@dataclass(frozen=True)
class MemorySample:
    """Memory of a process tree at one time."""

    seconds: float  # seconds since the start
    tree_bytes: int
    largest_bytes: int


def sample_memory(process: psutil.Process, started: float) -> MemorySample:
    """Sample the PSS of the process and its descendants."""
    sizes = [0]
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):  # the process has ended
            sizes.append(member.memory_full_info().pss)
    return MemorySample(time.monotonic() - started, sum(sizes), max(sizes))


def prepare_and_watch(folder: Path, pieces: int) -> tuple[dict[str, float], list[MemorySample]]:
    """Prepare in a separate process; return the end of each stage, and samples of its memory."""
    started = time.monotonic()
    command = [sys.executable, __file__, "--folder", str(folder), "--pieces", str(pieces)]
    command += ["--prepare-since", str(started)]
    with (folder / "stages.jsonl").open("w+") as stages:
        child = subprocess.Popen(command, stdout=stages)
        process = psutil.Process(child.pid)
        samples = []
        while child.poll() is None:
            with suppress(psutil.NoSuchProcess):
                samples.append(sample_memory(process, started))
            time.sleep(1 / SAMPLES_PER_SECOND)
        if child.returncode:
            raise SystemExit(f"prepare has failed with exit code {child.returncode}")
        stages.seek(0)
        return dict(map(json.loads, stages)), samples


def summary(
    pairs: int, ends: dict[str, float], samples: list[MemorySample]
) -> dict[str, dict[str, float]]:
    """Return seconds, pairs per second and maximum memory of each stage, and of the whole."""
    result = {}
    begin = 0.0
    for stage, end in [*ends.items(), ("whole", max(ends.values()))]:
        if stage == "whole":
            begin = 0.0
        during = [sample for sample in samples if begin <= sample.seconds <= end]
        result[stage] = {
            "seconds": end - begin,
            "pairs_per_second": pairs / (end - begin),
            "tree_bytes": max((sample.tree_bytes for sample in during), default=0),
            "largest_process_bytes": max((sample.largest_bytes for sample in during), default=0),
        }
        begin = end
    return result


def table(stages: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':18}{'seconds':>9}{'pairs/s':>12}{'memory':>12}{'largest process':>18}"]
    for stage, found in stages.items():
        lines.append(
            f"{stage:18}{found['seconds']:>9,.1f}{found['pairs_per_second']:>12,.0f}"
            f"{found['tree_bytes'] / GIBIBYTE:>8,.2f} GiB"
            f"{found['largest_process_bytes'] / GIBIBYTE:>14,.2f} GiB"
        )
    highest = stages["whole"]["tree_bytes"]
    reached = "reached" if highest <= GOAL_BYTES else "MISSED"
    lines.append(
        f"{reached}: {highest / GIBIBYTE:,.2f} GiB, goal at most {GOAL_BYTES / GIBIBYTE:g} GiB"
    )
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--pieces", type=int, default=32_000, help="size of the vocabulary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where a folder for all files is made")
    parser.add_argument("--prepare-since", type=float, help=argparse.SUPPRESS)
    arguments = parse_arguments(parser, smoke="--pairs 5000 --pieces 2000")
    if arguments.prepare_since is not None:
        prepare_here(arguments.folder, arguments.pieces, arguments.prepare_since)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        started = time.monotonic()
        write_corpus(folder, arguments.pairs, arguments.seed)
        size = sum((folder / f"corpus.{side}").stat().st_size for side in VOWELS)
        say(
            f"{arguments.pairs:,} pairs, {size / 1e9:.2f} GB of text, written in "
            f"{time.monotonic() - started:.0f} s; preparing with {len(os.sched_getaffinity(0))} "
            "processes"
        )
        stages = summary(arguments.pairs, *prepare_and_watch(folder, arguments.pieces))
    print(json.dumps(stages) if arguments.json else table(stages))


if __name__ == "__main__":
    main()
