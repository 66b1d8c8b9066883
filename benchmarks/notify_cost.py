"""Cost of notifications for a run's speed: two bad commands against no notifications.

Three trainings of the same recipe take turns: while one trains, the others are stopped by SIGSTOP.
One has two commands, of which one never ends and one fails at once. Each validation with a better
loss is a notification to both of them, which is repeated and kept in queues. The other two have no
targets. The second of these is the control: its ratio to the first shows the difference between two
equal trainings.

A window is a number of steps with the same number of validations. A round has a window of each
training, and the order rotates. The figures are the medians of the rounds' ratios of time and of
CPU time, each with the interval that contains the true median with 96 % (the 6th to the 15th of 20
ratios). Other processes hardly change CPU time. The model is small, so that a step is short and a
fixed cost a large share of it.

These differences may be below those of equal trainings. So the CPU time of the deliveries is also
measured alone, in a process that only sends a message to both commands every two seconds.

    .venv/bin/python benchmarks/notify_cost.py [--rounds N] [--steps N] [KEY=VALUE …]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.support.command_line import parse_arguments
from benchmarks.support.cpu import cpu_by_process
from benchmarks.support.trainings import has_ended, running, say
from cluster.notify.delivery import Deliveries
from cluster.notify.notification import Notification, RunEvent
from cluster.notify.targets import open_target
from cluster.recipe import find_recipe, load_recipe
from data_pipeline.preparation.prepare import prepare
from trainer.errors import TrainerError
from trainer.notify_config import NotifyTarget
from trainer.record.metrics_file import train_lines
from trainer.record.metrics_lines import TrainLine
from trainer.runs.folder import RunFolder

TRANSLOOM = str(Path(sys.executable).parent / "transloom")
START_SECONDS = 300.0
POLL_SECONDS = 0.05
NEVER = 10_000_000
SMALL = [
    "model.width=64",
    "model.feed_forward_width=128",
    "decoding.max_length_factor=0.2",
    "decoding.max_extra_length=2",
]
PLAIN, NOTIFYING, CONTROL = "plain", "notifying", "control"
COMMANDS = {"TRANSLOOM_HANG": ["/bin/sleep", "86400"], "TRANSLOOM_FAIL": ["/bin/false"]}
ENVIRONMENT = {name: json.dumps(argv) for name, argv in COMMANDS.items()}


@dataclass
class Run:
    """Training that continues until it is ended."""

    folder: Path
    overrides: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        run = str(self.folder / "run")
        return [TRANSLOOM, "train", "phrasebook", *self.overrides, "--inline", "--run", run]

    def lines(self) -> list[TrainLine]:
        try:
            return train_lines(self.folder / "run" / "metrics.jsonl")
        except TrainerError:
            return []  # it has not begun


class Cost(NamedTuple):
    """Time of a window, and CPU time of the training's process in it."""

    seconds: float
    cpu_seconds: float


@dataclass
class Contestant:
    """Training that is stopped except in its windows."""

    run: Run
    driver: psutil.Process

    def wait_for_step(self, step: int) -> list[TrainLine]:
        """Return the train lines once there is one of this step."""
        deadline = time.monotonic() + START_SECONDS
        while not (lines := self.run.lines()) or lines[-1].step < step:
            if has_ended(self.driver) or time.monotonic() > deadline:
                output = (self.run.folder / "output.txt").read_text(errors="replace")
                sys.exit(f"step {step} was not reached\n{output[-4000:]}")
            time.sleep(POLL_SECONDS)
        return lines

    def window(self, steps: int) -> Cost:
        """Return the cost of the next steps."""
        first = self.run.lines()[-1].step + 2  # the next step was interrupted
        self.driver.resume()
        self.wait_for_step(first)
        cpu = sum(cpu_by_process(self.driver).values())
        lines = self.wait_for_step(first + steps)
        cpu = sum(cpu_by_process(self.driver).values()) - cpu
        self.driver.suspend()
        times = {line.step: line.time for line in lines}
        return Cost(times[first + steps] - times[first], cpu)


@contextmanager
def contestants(runs: dict[str, Run]) -> Iterator[dict[str, Contestant]]:
    """Start all trainings, and stop each after its first steps."""
    with ExitStack() as stack:
        found = {
            name: Contestant(run, stack.enter_context(running(run))) for name, run in runs.items()
        }
        for contestant in found.values():
            contestant.wait_for_step(10)
            contestant.driver.suspend()
        yield found


def cpu_share_of_deliveries(seconds: float) -> float:
    """Return the share of a core that deliveries to the bad commands take, with their starts."""
    targets = [open_target(NotifyTarget(command_from=name), ENVIRONMENT) for name in COMMANDS]
    deliveries = Deliveries(targets, lambda text: None)
    cpu, began = _cpu_seconds(), time.monotonic()
    while time.monotonic() - began < seconds:
        event = RunEvent("best_score", "A message of a benchmark.")
        deliveries.put(Notification.of(event, RunFolder(Path("run")), NEVER))
        time.sleep(min(2.0, seconds))
    share = (_cpu_seconds() - cpu) / (time.monotonic() - began)
    deliveries.abandon()
    return share


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="of each window")
    parser.add_argument("--validate-every", type=int, default=10, help="a divisor of --steps")
    parser.add_argument("--alone", type=float, default=40.0, help="seconds of deliveries alone")
    parser.add_argument("overrides", nargs="*")
    arguments = parse_arguments(
        parser,
        smoke="--rounds 1 --steps 4 --validate-every 2 --alone 2 data.dataset={folder}/dataset "
        "batching.max_tokens_per_micro_batch=64 tracking.wandb=disabled",
    )
    overrides = [
        "batching.max_tokens_per_micro_batch=128",
        *SMALL,
        *arguments.overrides,
        f"trainer.max_steps={NEVER}",
        f"trainer.validate_every_steps={arguments.validate_every}",
        f"checkpoints.every_steps={NEVER}",
    ]
    targets = ", ".join(f"{{command_from: {name}}}" for name in COMMANDS)
    notify = f"tracking.notify={{targets: [{targets}], events: [best_score]}}"
    prepare(load_recipe(find_recipe("phrasebook"), overrides).data_settings, lambda progress: None)
    rounds: list[dict[str, Cost]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs = {
            PLAIN: Run(folder / PLAIN, overrides),
            NOTIFYING: Run(folder / NOTIFYING, [*overrides, notify], ENVIRONMENT),
            CONTROL: Run(folder / CONTROL, overrides),
        }
        for run in runs.values():
            run.folder.mkdir()
        with contestants(runs) as taking_turns:
            for number in range(arguments.rounds):
                first = number % len(runs)
                order = [*runs, *runs][first : first + len(runs)]
                rounds.append({name: taking_turns[name].window(arguments.steps) for name in order})
                shown = ", ".join(
                    f"{name} {cost.seconds:.2f} s (CPU {cost.cpu_seconds:.2f} s)"
                    for name, cost in rounds[-1].items()
                )
                say(f"round {number + 1}: {shown}; load {os.getloadavg()[0]:.1f}")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            share = pool.submit(cpu_share_of_deliveries, arguments.alone).result()
        log = (runs[NOTIFYING].folder / "run" / "log.txt").read_text()
    print(f"{len(rounds)} rounds of {arguments.steps} steps, cost in time and in CPU time")
    for name in (NOTIFYING, CONTROL):
        shares = (_share(rounds, name, kind) for kind in Cost._fields)
        print(f"{name} against {PLAIN}: {', '.join(shares)}")
    print(f"deliveries alone: {share:.2%} of a core")
    print(f"lost notifications: {log.count('could not be delivered')}")


def _share(rounds: list[dict[str, Cost]], name: str, kind: str) -> str:
    """Return the median of the ratios minus 1, and its interval."""
    ordered = sorted(getattr(one[name], kind) / getattr(one[PLAIN], kind) for one in rounds)
    reach = len(ordered) * 5 // 20  # from the 6th to the 15th of 20
    low, high = ordered[reach], ordered[len(ordered) - 1 - reach]
    return f"{statistics.median(ordered) - 1:.2%} ({low - 1:.2%} to {high - 1:.2%})"


if __name__ == "__main__":
    main()
