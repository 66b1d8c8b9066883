r"""Cost of a network between ranks: two hosts of one core against one host of two.

Hosts are namespaces on this machine (root, Linux): each has its own address on a bridge, and its
processes are bound to its cores. On both clusters, the same command trains the same recipe on two
ranks of one thread. Head, driver and, usually, the data worker run on the first host. The two
clusters alternate, and start again for each turn. A turn's speed is the target tokens per second of
its steady state, from 10 s after the first step, and the figure is the median of the ratios of the
pairs. The goal is at least 0.85.

    .venv/bin/python benchmarks/two_hosts.py [--pairs 5] [--seconds 30] [--recipe RECIPE]
        [KEY=VALUE …]

RECIPE's dataset is prepared if it is missing. On a machine with other users, the ratio also
depends on the cores that they use in each turn.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.record import SETTLING_SECONDS, Step, tokens_per_second
from benchmarks.support.trainings import say, train_command
from run_store.folder import RunFolder
from run_store.record.metrics_file import train_lines

ROOT = Path(__file__).resolve().parents[1]
# Cores of each host.
ONE_HOST, TWO_HOSTS = ((0, 1),), ((0,), (1,))
GOAL = 0.85
START_SECONDS = 600.0
SETTINGS = [
    "cluster.ranks=2",
    "cluster.cpus_per_rank=1",
    "cluster.placement=spread",
    "cluster.warm_spares=false",
    "trainer.max_steps=1000000",
    "trainer.validate_every_steps=1000000",
    "checkpoints.every_steps=1000000",
    "tracking.wandb=disabled",
]


def tokens_a_second(
    cores: Sequence[Sequence[int]], arguments: argparse.Namespace, settings: list[str], folder: Path
) -> float:
    """Return the speed of one turn on hosts with these cores."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.cluster.hosts import Hosts, Names
    from support.cluster.ray_on_hosts import join, start_head

    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0",  # as for an embedded Ray
    }
    run = folder / "run"
    with Hosts(len(cores), Names.GOOD, shared=folder.parent) as hosts:
        bound = [["taskset", "--cpu-list", ",".join(map(str, which))] for which in cores]
        address = start_head(hosts, environment, len(cores[0]), bound[0])
        for host in range(1, len(cores)):
            join(hosts, host, environment, len(cores[host]), bound[host])
        train = train_command(arguments.recipe, [*settings, "--address", address], run)
        driver = hosts.start(0, *bound[0], *train, env=environment)
        wait_for(driver, run, arguments.settling + arguments.seconds)
        RunFolder(run).ask_to_stop()
        driver.communicate()
    lines = train_lines(run / "metrics.jsonl")
    assert {line.world_size for line in lines} == {2}
    steps = [Step(line.time, line.target_tokens) for line in lines]
    return tokens_per_second(steps, arguments.settling)


def wait_for(driver: "subprocess.Popen[str]", run: Path, seconds: float) -> None:
    """Wait until the run has trained for this time after its first step."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and driver.poll() is None:
        lines = train_lines(run / "metrics.jsonl")
        if lines and lines[-1].time - lines[0].time > seconds:
            return
        time.sleep(1.0)
    driver.kill()
    sys.exit(f"There was no steady state\n{driver.communicate()[0]}")


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, overrides=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the steady state, a turn")
    parser.add_argument(
        "--settling", type=float, default=SETTLING_SECONDS, help="seconds before the steady state"
    )
    parser.add_argument("--recipe", default="phrasebook")
    arguments = parse_arguments(parser, smoke="--pairs 1 --seconds 1 --settling 0")
    speeds: dict[str, list[float]] = {"one host of two cores": [], "two hosts of one core": []}
    with tempfile.TemporaryDirectory(prefix="two-hosts-", dir="/tmp") as temporary:
        dataset = f"data.dataset={temporary}/dataset"
        prepared_recipe(arguments.recipe, [*arguments.overrides, dataset])
        settings = [*SETTINGS, *arguments.overrides, dataset]
        for pair in range(arguments.pairs):
            for name, cores in zip(speeds, (ONE_HOST, TWO_HOSTS), strict=True):
                folder = Path(temporary) / f"{pair}-{len(cores)}"
                folder.mkdir()

                speed = tokens_a_second(cores, arguments, settings, folder)
                speeds[name].append(speed)
                say(f"{name}: {speed:,.0f} target tokens/s, load {os.getloadavg()[0]:.1f}")
    ratios = [two / one for one, two in zip(*speeds.values(), strict=True)]
    if arguments.json:
        json.dump(speeds | {"ratios": ratios}, sys.stdout)
        return
    print("| | target tokens/s, median | range |\n|---|---|---|")
    for name, found in speeds.items():
        print(f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f}–{max(found):,.0f} |")
    print(
        f"\nratio of the pairs: median {statistics.median(ratios):.3f}, "
        f"range {min(ratios):.3f}–{max(ratios):.3f}, goal at least {GOAL}"
    )


if __name__ == "__main__":
    main()
