"""Speed of the working tree relative to the base commit: benchmarks in turn, and the ratio's range.

A pair is a measurement of each commit, one after the other; every second pair starts with the other
commit. A machine whose speed drifts therefore slows both, and only the ratio within a pair counts.
The interval of the ratios' median is bounded by two of the ratios, and assumes nothing about their
distribution.
"""

import json
import os
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from math import comb
from pathlib import Path

from two_commits.cases import DATASETS, Sides, dataset_of
from two_commits.checkout import Checkout, CheckoutError

CONFIDENCE = 0.95
PAIRS_OF_SENTENCES = 145_000  # five times Multi30k, so that a pass takes a large part of a second
DATA_PLANE = (
    "transloom 1,024"  # data_plane.py's name for the measurement in one process on one core
)
PATH_COST = re.compile(r"bare loop ([\d,.]+), transloom train ([\d,.]+) target")

Rates = dict[str, float]


@dataclass(frozen=True)
class Interval:
    """Interval that contains a distribution's median with a confidence of at least 95 %."""

    median: float
    low: float
    high: float


def interval_of_median(values: list[float]) -> Interval:
    """Return the k-th smallest and k-th largest value, with the largest k that is confident enough.

    The median is below the k-th smallest of n values if fewer than k of n fair coins show heads.

    Raises:
        ValueError: there are too few values.
    """
    ordered, count = sorted(values), len(values)
    outside, k = 0.0, 0
    while k < (count - 1) // 2:
        outside += 2 * comb(count, k) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        k += 1
    if k == 0:
        raise ValueError(f"{count} pairs are too few for an interval of 95 %: use at least 6")
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[count - k])


def measure_in_turn(
    base: Callable[[], Rates], here: Callable[[], Rates], pairs: int
) -> Iterator[dict[str, float]]:
    """Yield the ratios of each pair: the speed of the working tree divided by that of the base."""
    for pair in range(pairs):
        if pair % 2:
            theirs = here()
            ours = base()
        else:
            ours = base()
            theirs = here()
        yield {name: theirs[name] / ours[name] for name in ours}


def path_cost(side: Checkout) -> Rates:
    """Return the target tokens per second of `transloom train` and of a bare loop over its model.

    The third value is the ratio of the two rates.
    """
    printed = side.run(
        side.python,
        side.find("path_cost.py"),
        "--pairs=1",
        f"data.dataset={dataset_of(side, 'phrasebook')}",
        "cluster.warm_spares=false",
    )
    found = PATH_COST.search(printed)
    if found is None:
        raise CheckoutError(f"{side.name}: path_cost.py printed no rates: {printed[-300:]}")
    bare, whole = (float(number.replace(",", "")) for number in found.groups())
    return {"transloom train": whole, "its bare loop": bare, "path (train / bare)": whole / bare}


def data_plane(side: Checkout) -> Rates:
    """Return the pairs per second that one process on one core makes into micro-batches."""
    printed = side.run(
        side.python,
        side.find("data_plane.py"),
        "--folder",
        side.work / "repeated",
        "--measure",
        DATA_PLANE,
        "--core",
        str(max(os.sched_getaffinity(0))),
    )
    found = json.loads(printed.splitlines()[-1])
    return {"data plane": found["count"] / found["seconds"]}


def prepare_for_data_plane(side: Checkout, multi30k: Path) -> None:
    """Prepare the dataset that data_plane.py measures: Multi30k repeated several times."""
    folder = side.work / "repeated"
    folder.mkdir()
    for field, language in (("src", "en"), ("tgt", "de")):
        lines = (multi30k / f"train.{language}").read_text().split("\n")[:-1]
        repeated = islice(cycle(lines), PAIRS_OF_SENTENCES)
        (folder / f"repeated.{field}").write_text("".join(f"{line}\n" for line in repeated))
    side.transloom(
        "prepare",
        DATASETS["multi30k"].recipe,
        f"data.train=[{{source: {folder}/repeated.src, target: {folder}/repeated.tgt}}]",
        "data.validation={source: 'builtin:phrasebook/validation.fr', "
        "target: 'builtin:phrasebook/validation.en'}",
        "data.tests={}",
        f"data.dataset={folder}/dataset",
    )


def measure(sides: Sides, multi30k: Path | None, pairs: int, say: Callable[[str], None]) -> None:
    """Run both benchmarks, and print their intervals.

    Raises:
        CheckoutError: a commit's benchmark has failed, or its output has another form.
    """
    if not dataset_of(sides.base, "phrasebook").exists():
        sides.prepare("phrasebook")
    benchmarks = [path_cost]
    if multi30k is None:
        say("data plane: skipped, because it needs Multi30k")
    else:
        for side in (sides.base, sides.here):
            prepare_for_data_plane(side, multi30k)
        benchmarks.append(data_plane)
    for benchmark in benchmarks:
        ratios: list[dict[str, float]] = []
        turns = measure_in_turn(
            lambda run=benchmark: run(sides.base), lambda run=benchmark: run(sides.here), pairs
        )
        for number, ratio in enumerate(turns, 1):
            ratios.append(ratio)
            values = ", ".join(f"{name} {value:.3f}" for name, value in ratio.items())
            say(f"pair {number} of {pairs}: {values}")
        for name in ratios[0]:
            found = interval_of_median([ratio[name] for ratio in ratios])
            say(
                f"{name}: {found.median:.3f} times as fast as the base (median of {pairs} pairs; "
                f"95 %: {found.low:.3f} to {found.high:.3f})"
            )
