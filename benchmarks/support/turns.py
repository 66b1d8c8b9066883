"""Measure contestants in turn, and tabulate their speeds."""

import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.support.speed import Contestant, Speed, measure
from benchmarks.support.trainings import say

Speeds = dict[str, list[Speed]]


def table(speeds: Speeds, goals: Mapping[str, float]) -> str:
    """Return a Markdown table of each contestant's speed, and of our speed divided by each peer's.

    Args:
        goals: the required ratio for each peer, by the peer's name. All other contestants are ours.
    """
    lines = [
        "| | tokens/s, median | range | tokens/CPU s, median | range | runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in speeds.items():
        columns = [
            f"{statistics.median(values):,.0f} | {min(values):,.0f}–{max(values):,.0f}"
            for values in zip(*found, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(columns)} | {len(found)} |")
    lines += ["", "| ratio | by wall time | range | by CPU time | range | goal |"]
    lines += ["|---|---|---|---|---|---|"]
    for ours in (name for name in speeds if name not in goals):
        for peer, goal in goals.items():
            if peer in speeds:
                columns = [
                    f"{statistics.median(values):.2f} | {min(values):.2f}–{max(values):.2f}"
                    for values in ratios(speeds[ours], speeds[peer])
                ]
                lines.append(f"| {ours} / {peer} | {' | '.join(columns)} | {goal:g} |")
    return "\n".join(lines)


def ratios(ours: list[Speed], theirs: list[Speed]) -> list[list[float]]:
    """Return our speed divided by theirs in each round: first by wall time, then by CPU time."""
    pairs = list(zip(ours, theirs, strict=True))
    return [[a[kind] / b[kind] for a, b in pairs] for kind in range(len(Speed._fields))]


def take_turns(
    contestants: Mapping[str, Contestant], rounds: int, seconds: float, settling_seconds: float
) -> Speeds:
    """Measure all contestants in turn in each round; see `speed.measure`."""
    speeds: Speeds = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as temporary:
        for round_number in range(rounds):
            for number, (name, contestant) in enumerate(contestants.items()):
                contestant.enter(Path(temporary) / f"{round_number}-{number}")
                speeds[name].append(measure(contestant, seconds, settling_seconds))
                clock, cpu = speeds[name][-1]
                load = os.getloadavg()[0]
                say(f"{name}: {clock:,.0f}/s, {cpu:,.0f} per CPU second, load {load:.1f}")
    return speeds
