"""Cost of `transloom watch` while a run trains: its share of a core, and the cost of its start.

A training of the recipe runs; `transloom watch` runs several times at the same time, in a terminal
of 200 x 50. Its start is measured separately, because a user starts it only once. The run loses
less than this share: the watcher has a niceness of 10, and the run's speed varies by more.

    python benchmarks/watching_cost.py [--windows N] [--seconds S] [--inline] [KEY=VALUE …]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.cpu import cpu_seconds
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.trainings import (
    TRANSLOOM,
    TransloomTraining,
    exit_with_output,
    has_ended,
    running,
    say,
    wait_for,
)
from run_store.record.metrics_file import train_lines

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.terminal import Terminal

# A new watcher first reads data that it does not read again.
SETTLING_SECONDS = 8.0
START_SECONDS = 300.0
ROWS, COLUMNS = 50, 200


@contextmanager
def watcher(run: Path) -> Iterator[psutil.Process]:
    """Run `transloom watch` on a terminal."""
    terminal = Terminal()
    termios.tcsetwinsize(terminal.program_end, (ROWS, COLUMNS))
    process = subprocess.Popen(
        [TRANSLOOM, "watch", str(run)],
        stdin=terminal.program_end,
        stdout=terminal.program_end,
        stderr=terminal.program_end,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()
        terminal.written()


def window(run: Path, settling: float, seconds: float) -> tuple[float, float]:
    """Return a watcher's share of a core, and the CPU seconds of its start."""
    with watcher(run) as process:
        time.sleep(settling)
        start, began = cpu_seconds(process.pid), time.monotonic()
        time.sleep(seconds)
        return (cpu_seconds(process.pid) - start) / (time.monotonic() - began), start


def wait_for_steps(training: TransloomTraining, driver: psutil.Process) -> None:
    def has_steps() -> bool:
        return len(train_lines(training.run / "metrics.jsonl")) >= 10

    wait_for("10 steps", has_steps, training, driver, START_SECONDS)


def main() -> None:
    parser = benchmark_parser(__doc__, overrides=True)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each window")
    parser.add_argument(
        "--settling",
        type=float,
        default=SETTLING_SECONDS,
        help="seconds of a start, before each window",
    )
    parser.add_argument("--inline", action="store_true", help="train without Ray")
    arguments = parse_arguments(
        parser,
        smoke="--windows 2 --seconds 4 --settling 1 --inline "
        "batching.max_tokens_per_micro_batch=64 data.dataset={folder}/dataset model.width=32 "
        "tracking.wandb=disabled",
    )
    never = 10_000_000
    overrides = [
        # several steps a second, each with a line in the record
        "batching.max_tokens_per_micro_batch=256",
        *arguments.overrides,
        f"trainer.max_steps={never}",
        f"trainer.validate_every_steps={never}",
        f"checkpoints.every_steps={never}",
    ]
    prepared_recipe("phrasebook", overrides)
    if arguments.inline:
        overrides.append("--inline")
    with tempfile.TemporaryDirectory() as folder:
        training = TransloomTraining(Path(folder), "phrasebook", overrides)
        with running(training, grace_seconds=60.0) as driver:
            wait_for_steps(training, driver)
            found = []
            for _ in range(arguments.windows):
                found.append(window(training.run, arguments.settling, arguments.seconds))
                say(f"{found[-1][0]:.1%} of a core, load {os.getloadavg()[0]:.1f}")
            if has_ended(driver):
                exit_with_output(training, "it ended within a window")
    share, start = map(statistics.median, zip(*found, strict=True))
    print(f"a watcher takes {share:.2%} of a core, and {start:.1f} s of one to start (medians)")


if __name__ == "__main__":
    main()
