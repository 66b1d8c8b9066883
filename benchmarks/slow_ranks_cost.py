"""Cost per step of comparing ranks: timers, times in the exchanged table, detector, line.

Each part runs alone in this process, as often as a step of this number of ranks with four passes
each needs it. The figure is CPU time, which depends little on other processes. Rank 0 has all
parts, the other ranks only the first two. Nothing is sent: in a run, the times are three additional
columns in the table of an existing exchange.

    .venv/bin/python benchmarks/slow_ranks_cost.py [--ranks 2,8,64,1024] [--steps N]
"""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from trainer.process.placement import Placement
from trainer.process.step_timer import StepTimer
from trainer.training import step_exchange
from trainer.training.slow_ranks import WINDOW, SlowRankDetector, time_fields

PASSES = 4
# collectives of a step; a base model has about 100 in a pass
COLLECTIVES = {"stage 1": 4, "stage 3": 400}


def microseconds(work: Callable[[], object], steps: int) -> float:
    """Return the CPU time of one call, in microseconds."""
    for _ in range(WINDOW + 1):  # a warm-up that fills the detector's window
        work()
    started = time.process_time()
    for _ in range(steps):
        work()
    return (time.process_time() - started) / steps * 1e6


def time_step(timer: StepTimer, collectives: int) -> None:
    """Call a timer as in a step."""
    with timer.step():
        for _ in range(PASSES):
            with timer.compute():
                for _ in range(collectives // PASSES):
                    with timer.wait():
                        pass
        timer.take()


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--ranks", default="2,8,64,1024", help="numbers of ranks")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parse_arguments(parser, smoke="--ranks 2,3 --steps 5")
    print("timers, µs per step on each rank")
    for name, collectives in COLLECTIVES.items():
        timer = StepTimer(Placement(world_size=2))
        found = microseconds(lambda: time_step(timer, collectives), arguments.steps)  # noqa: B023
        print(f"  {name}, {collectives} collectives: {found:.0f}")
    print("ranks   times of the table   detector   fields of the line   (µs per step)")
    draw = np.random.default_rng(1)
    for ranks in map(int, arguments.ranks.split(",")):
        rows = draw.uniform(0.9, 1.1, (PASSES * ranks, step_exchange._SUMS + 2))
        times = step_exchange._rank_times(rows, ranks)
        detector = SlowRankDetector()
        parts = (
            lambda: step_exchange._rank_times(rows, ranks),  # noqa: B023
            lambda: detector.add(times, 1),  # noqa: B023
            lambda: time_fields(times),  # noqa: B023
        )
        table, detecting, line = (microseconds(part, arguments.steps) for part in parts)
        print(f"{ranks:5}   {table:18.0f}   {detecting:8.0f}   {line:18.0f}")


if __name__ == "__main__":
    main()
