"""Measure contestants in turn, and tabulate their speeds."""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser
from benchmarks.support.record import SETTLING_SECONDS
from benchmarks.support.speed import Contestant, Speed, measure
from benchmarks.support.trainings import say

KINDS = 3  # kinds of time by which target tokens are divided
Speeds = dict[str, list[Speed]]


def table(speeds: Speeds, goals: Mapping[str, float]) -> str:
    """Return a Markdown table of each contestant's speed, and of our speed divided by each peer's.

    Args:
        goals: the required ratio for each peer, by the peer's name. All other contestants are ours.
    """
    lines = [
        "| | tokens/s, median | range | tokens/CPU s, median | range | of the trainer | range "
        "| steps | runs |",
        f"|{'---|' * 9}",
    ]
    for name, found in speeds.items():
        columns = _medians([[speed[kind] for speed in found] for kind in range(KINDS)], ",.0f")
        steps = min(speed.steps for speed in found)
        lines.append(f"| {name} | {columns} | {steps} | {len(found)} |")
    if goals:
        kinds = " | ".join(
            f"by {kind} | range" for kind in ("wall time", "CPU time", "the trainer's")
        )
        lines += ["", f"| ratio | {kinds} |"]
        lines.append(f"|{'---|' * 7}")
    for ours in (name for name in speeds if name not in goals):
        for peer, goal in goals.items():
            if peer in speeds:
                columns = _medians(ratios(speeds[ours], speeds[peer]), ".2f")
                lines.append(f"| {ours} / {peer}, goal {goal:g} | {columns} |")
    return "\n".join(lines)


def _medians(columns: list[list[float]], form: str) -> str:
    return " | ".join(
        f"{statistics.median(values):{form}} | {min(values):{form}}–{max(values):{form}}"
        for values in columns
    )


def ratios(ours: list[Speed], theirs: list[Speed]) -> list[list[float]]:
    """Return our speed divided by theirs in each round, for each kind of time."""
    pairs = list(zip(ours, theirs, strict=True))
    return [[a[kind] / b[kind] for a, b in pairs] for kind in range(KINDS)]


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
                clock, cpu, trainer, steps = speeds[name][-1]
                load = os.getloadavg()[0]
                say(
                    f"{name}: {clock:,.0f}/s, {cpu:,.0f} per CPU second, {trainer:,.0f} of the "
                    f"trainer's, {steps} steps, load {load:.1f}"
                )
    return speeds


def parser_of_turns(description: str | None, data: str) -> argparse.ArgumentParser:
    """Return the command line of a benchmark against Hugging Face, for `print_speeds`.

    Args:
        data: help of the option `--data`.
    """
    parser = benchmark_parser(description, json=True, overrides=True)
    parser.add_argument("--data", help=data)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of the steady state, a run")
    parser.add_argument(
        "--settling", type=float, default=SETTLING_SECONDS, help="seconds before the steady state"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each contestant's torch")
    parser.add_argument("--without-hugging-face", action="store_true")
    parser.add_argument("--torch-index", help="package index with torch for CPU, for the peer")
    return parser


def print_speeds(
    contestants: Mapping[str, Contestant], goals: Mapping[str, float], options: argparse.Namespace
) -> None:
    """Measure the contestants in turn, and print their speeds; see `parser_of_turns`."""
    speeds = take_turns(contestants, options.rounds, options.seconds, options.settling)
    print(json.dumps(speeds) if options.json else table(speeds, goals))
