"""What it costs a run that somebody watches it: windows of one training with and without a watcher.

One training of the recipe goes on; `transloom watch` runs beside it, on a terminal of 200 x 50, in
every other window. Two neighbouring windows are a pair, whose order alternates, so that a machine
whose speed drifts slows both. The figure is the median of the pairs' ratios of target tokens per
second, with the interval that holds the true median with 96 % (the 6th to the 15th of 20 ratios).
The watcher's start is measured by itself, as somebody who watches starts once.

    .venv/bin/python benchmarks/watching_cost.py [--pairs N] [--seconds S] [--inline] [KEY=VALUE …]
"""

import fcntl
import os
import pty
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
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
    descendants,
    exit_with_output,
    has_ended,
    running,
    say,
    wait_for,
)
from trainer.record.metrics_file import train_lines

# Steps at first are slower, and a watcher that has just started reads what it will not read again.
SETTLING_SECONDS = 8.0
START_SECONDS = 300.0
ROWS, COLUMNS = 50, 200


@contextmanager
def watcher(run: Path) -> Iterator[psutil.Process]:
    """`transloom watch` on a terminal of its own, whose screen is read and thrown away."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [TRANSLOOM, "watch", str(run)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm-256color"},
    )
    os.close(terminal)
    reader = threading.Thread(target=_throw_away, args=(screen,), daemon=True)
    reader.start()
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()
        reader.join()
        os.close(screen)


def _throw_away(screen: int) -> None:
    try:
        while os.read(screen, 65536):
            pass
    except OSError:
        return  # nobody has the terminal open any more


def speed(run: Path, since: float, until: float) -> float:
    """Target tokens per second of the steps that ended in a window."""
    lines = [line for line in train_lines(run / "metrics.jsonl") if since <= line.time < until]
    if len(lines) < 10:
        sys.exit(
            f"only {len(lines)} steps in a window of {until - since:.0f} s: give more --seconds"
        )
    tokens = sum(line.target_tokens for line in lines[1:])
    return tokens / (lines[-1].time - lines[0].time)


def window(training: TransloomTraining, seconds: float, driver: psutil.Process) -> float:
    """Return the speed of the next seconds."""
    since = time.time()
    time.sleep(seconds)
    if has_ended(driver):
        exit_with_output(training, "it ended within a window")
    return speed(training.run, since, time.time())


def watched_window(
    training: TransloomTraining, settling: float, seconds: float, driver: psutil.Process
) -> tuple[float, float, float]:
    """The speed of a window with a watcher, its share of a core, and CPU seconds of its start."""
    with watcher(training.run) as process:
        time.sleep(settling)
        start, began = cpu_seconds(process.pid), time.monotonic()
        watched = window(training, seconds, driver)
        share = (cpu_seconds(process.pid) - start) / (time.monotonic() - began)
        return watched, share, start


def wait_for_steps(training: TransloomTraining, driver: psutil.Process) -> None:
    def has_steps() -> bool:
        record = training.run / "metrics.jsonl"
        return record.exists() and len(train_lines(record)) >= 10

    wait_for("10 steps", has_steps, training, driver, START_SECONDS)


def main() -> None:
    parser = benchmark_parser(__doc__, overrides=True)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each window")
    parser.add_argument(
        "--settling", type=float, default=SETTLING_SECONDS, help="seconds before each window"
    )
    parser.add_argument("--inline", action="store_true", help="train without Ray")
    arguments = parse_arguments(
        parser,
        smoke="--pairs 1 --seconds 4 --settling 1 --inline batching.max_tokens_per_micro_batch=64 "
        "data.dataset={folder}/dataset model.width=32 tracking.wandb=disabled",
    )
    never = 10_000_000
    overrides = [
        "batching.max_tokens_per_micro_batch=256",  # several steps a second, each with its line
        *arguments.overrides,
        f"trainer.max_steps={never}",
        f"trainer.validate_every_steps={never}",
        f"checkpoints.every_steps={never}",
    ]
    prepared_recipe("phrasebook", overrides)
    if arguments.inline:
        overrides.append("--inline")
    ratios, shares, starts = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        training = TransloomTraining(Path(folder), "phrasebook", overrides)
        with running(training, grace_seconds=60.0) as driver:
            wait_for_steps(training, driver)
            for pair in range(arguments.pairs):
                for with_watcher in (False, True) if pair % 2 else (True, False):
                    if with_watcher:
                        watched, share, start = watched_window(
                            training, arguments.settling, arguments.seconds, driver
                        )
                    else:
                        time.sleep(arguments.settling)
                        alone = window(training, arguments.seconds, driver)
                ratios.append(watched / alone)
                shares.append(share)
                starts.append(start)
                load = os.getloadavg()[0]
                say(
                    f"pair {pair + 1}: alone {alone:,.0f}, watched {watched:,.0f} target tokens/s, "
                    f"ratio {ratios[-1]:.4f}; the watcher took {share:.1%} of a core, load "
                    f"{load:.1f}, {len(descendants(driver))} processes of the run"
                )
    ordered = sorted(ratios)
    reach = len(ordered) * 5 // 20  # from the 6th to the 15th of 20
    low, high = ordered[reach], ordered[len(ordered) - 1 - reach]
    print(
        f"watching costs {1 - statistics.median(ratios):.2%} of a run's speed (median of "
        f"{len(ratios)} pairs; {1 - high:.2%} to {1 - low:.2%}); a watcher takes "
        f"{statistics.median(shares):.2%} of a core, and {statistics.median(starts):.1f} s of one "
        "to start"
    )


if __name__ == "__main__":
    main()
