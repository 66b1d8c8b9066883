"""Cost of notifications for a run's speed: two bad commands against no notifications.

Three trainings of the same recipe take turns. One has two commands, of which one never ends and one
fails at once. Each validation with a better loss is a notification to both of them, which is
repeated and kept in queues. The other two have no targets. The second of these is the control: its
ratio to the first shows the difference between two equal trainings. The model is small, so that a
step is short and a fixed cost a large share of it.

These differences may be below those of equal trainings. So the CPU time of the deliveries is also
measured alone, in a process that only sends a message to both commands every two seconds.

    .venv/bin/python benchmarks/notify_cost.py [--rounds N] [--seconds S] [KEY=VALUE …]
"""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.contestants import Transloom
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.turns import table, take_turns
from cluster.notify.delivery import Deliveries
from cluster.notify.notification import Notification, RunEvent
from cluster.notify.targets import open_target
from trainer.notify_config import NotifyTarget
from trainer.runs.folder import RunFolder

SMALL = [
    "model.width=64",
    "model.feed_forward_width=128",
    "decoding.max_length_factor=0.2",
    "decoding.max_extra_length=2",
    "batching.max_tokens_per_micro_batch=128",
]
COMMANDS = {"TRANSLOOM_HANG": ["/bin/sleep", "86400"], "TRANSLOOM_FAIL": ["/bin/false"]}
ENVIRONMENT = {name: json.dumps(argv) for name, argv in COMMANDS.items()}


def cpu_share_of_deliveries(seconds: float) -> float:
    """Return the share of a core that deliveries to the bad commands take, with their starts."""
    targets = [open_target(NotifyTarget(command_from=name), ENVIRONMENT) for name in COMMANDS]
    deliveries = Deliveries(targets, lambda text: None)
    cpu, began = _cpu_seconds(), time.monotonic()
    while time.monotonic() - began < seconds:
        event = RunEvent("best_score", "A message of a benchmark.")
        deliveries.put(Notification.of(event, RunFolder(Path("run")), 1))
        time.sleep(min(2.0, seconds))
    share = (_cpu_seconds() - cpu) / (time.monotonic() - began)
    deliveries.abandon()
    return share


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = benchmark_parser(__doc__, overrides=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training in a round")
    parser.add_argument("--settling", type=float, default=5.0, help="seconds before them, at least")
    parser.add_argument("--validate-every", type=int, default=10, help="steps")
    parser.add_argument("--alone", type=float, default=40.0, help="seconds of deliveries alone")
    arguments = parse_arguments(
        parser,
        smoke="--rounds 1 --seconds 2 --settling 0.1 --validate-every 2 --alone 2 "
        "data.dataset={folder}/dataset batching.max_tokens_per_micro_batch=64 "
        "tracking.wandb=disabled",
    )
    overrides = [*SMALL, *arguments.overrides]
    targets = ", ".join(f"{{command_from: {name}}}" for name in COMMANDS)
    notify = f"tracking.notify={{targets: [{targets}], events: [best_score]}}"
    data = prepared_recipe("phrasebook", overrides).data
    overrides.append(f"data.dataset={Path(data.dataset).resolve()}")
    notifying = [*overrides, notify]
    trainings = {"plain": overrides, "notifying": notifying, "control": overrides}
    contestants = {
        name: Transloom("phrasebook", 1, given, validate_every=arguments.validate_every)
        for name, given in trainings.items()
    }
    contestants["notifying"].environment = ENVIRONMENT
    speeds = take_turns(contestants, arguments.rounds, arguments.seconds, arguments.settling)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        share = pool.submit(cpu_share_of_deliveries, arguments.alone).result()
    print(table(speeds, {"plain": 1.0}))
    print(f"deliveries alone: {share:.2%} of a core")


if __name__ == "__main__":
    main()
