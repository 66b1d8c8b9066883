"""What it costs when torch's threads wait for each other awake: on an idle core and on a busy one.

One process with two threads trains the phrase book, with each way of waiting in turn, first with
nothing else on the machine and then beside processes that only count. The figure is the median of a
step's seconds. A way that has not come far enough after a while is told as more than what it took.

    .venv/bin/python benchmarks/waiting_threads.py [--rounds N] [--busy N] [--steps N]
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.trainings import complete, train_command
from foundation.openmp import POLICY, SPINS, VARIABLE
from trainer.record.metrics_file import train_lines

WARM_UP = 6  # steps
PATIENCE_SECONDS = 180.0
OURS = f"{int(SPINS):,} looks, transloom's"
WAYS = {
    "as libgomp does by itself": {VARIABLE: "300000"},
    "30,000 looks": {VARIABLE: "30000"},
    OURS: {VARIABLE: SPINS},
    "3,000 looks": {VARIABLE: "3000"},
    "asleep at once": {POLICY: "passive"},
}


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that only count."""
    running = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds_of_a_step(folder: Path, steps: int, way: dict[str, str]) -> str:
    """The median, as it is printed."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    arguments = [
        *(f"data.dataset={folder}/dataset", "--inline"),
        *("cluster.ranks=1", "cluster.cpus_per_rank=2"),
        *(f"trainer.max_steps={WARM_UP + steps}", "trainer.validate_every_steps=100000"),
        *("checkpoints.every_steps=100000", "tracking.wandb=disabled"),
    ]
    inherited = {k: v for k, v in os.environ.items() if k not in (VARIABLE, POLICY)}
    with suppress(subprocess.TimeoutExpired):
        complete(train_command("phrasebook", arguments, run), inherited | way, PATIENCE_SECONDS)
    record = run / "metrics.jsonl"
    lines = [line.step_seconds for line in train_lines(record)] if record.exists() else []
    if len(lines) <= WARM_UP:
        return f"> {PATIENCE_SECONDS / (len(lines) + 1):.3f}"
    return f"{statistics.median(lines[WARM_UP:]):.3f}"


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--busy", type=int, default=1, help="processes that only count")
    parser.add_argument("--steps", type=int, default=30)
    arguments = parse_arguments(parser, smoke="--rounds 1 --steps 1 --busy 0")
    ways = {OURS: WAYS[OURS]} if arguments.smoke else WAYS
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared_recipe("phrasebook", [f"data.dataset={folder}/dataset"])
        print("| beside it | threads that wait | seconds a step |\n|---|---|---|", flush=True)
        for others in (0, arguments.busy):
            found: dict[str, list[str]] = {name: [] for name in ways}
            for _ in range(arguments.rounds):
                for name, way in ways.items():
                    with busy(others):
                        found[name].append(seconds_of_a_step(folder, arguments.steps, way))
            for name, seconds in found.items():
                print(f"| {others} | {name} | {', '.join(seconds)} |", flush=True)


if __name__ == "__main__":
    main()
