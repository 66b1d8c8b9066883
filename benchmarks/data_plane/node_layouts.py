"""What layouts cost the ranks of a node, their agent and a data worker, in requests and CPU time.

Ranks without a network take steps of the phrase book from one data worker, by turns with an agent
that requests layouts once for all of them, and without it. A window is a shard, so that each step
takes layouts of several windows, as steps of many ranks do. The table has the requests for layouts
that arrive at the data worker per step, and the CPU milliseconds per step of the data worker, the
agent and all ranks. Medians of the turns.

    .venv/bin/python benchmarks/data_plane/node_layouts.py [--ranks NUMBERS] [--steps N]
"""

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from tempfile import TemporaryDirectory
from typing import Any

import ray

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.cpu import cpu_seconds
from cluster.data.node_layouts import NodeLayouts, NodeSharing
from cluster.data.streams import WorkerStreams
from cluster.data.worker_client import WorkerClient
from cluster.data.workers import DataWorkers, WorkerHandle
from cluster.health.watchdog import HeartbeatSender
from cluster.ray.session import ray_session
from cluster.recipe import find_recipe, load_recipe
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.stream import RankStep
from data_pipeline.preparation.prepare import prepare

MANY_BYTES = 64 * 2**20
SLOTS_PER_RANK = 1
SMALL = ("batching.window_shards=1", "batching.max_tokens_per_micro_batch=512")
TURNS = 5


@ray.remote(num_cpus=0)
class CountingAgent:
    """Part of a node's agent that requests layouts, and the number of its requests."""

    def __init__(self) -> None:
        self._layouts = NodeLayouts()
        self._windows: set[tuple[int, int]] = set()

    def layout(self, worker: Any, attempt: str, epoch: int, window: int) -> Any:
        self._windows.add((epoch, window))
        return self._layouts.reference(worker, attempt, epoch, window)

    def sent(self) -> int:
        return len(self._windows)

    def process_id(self) -> int:
        return os.getpid()


@ray.remote(num_cpus=0)
class TakingRank:
    """Rank that takes steps and does not train."""

    def open(
        self, workers: list[WorkerHandle], rank: int, ranks: int, sharing: NodeSharing | None
    ) -> None:
        self._asked = 0
        client = WorkerClient(workers, print)
        client.sharing = sharing
        ask = client.ask_for_layout

        def counted(epoch: int, window: int) -> Any:
            self._asked += 1
            return ask(epoch, window)

        client.ask_for_layout = counted  # type: ignore[method-assign]
        self._steps: Iterator[RankStep] = WorkerStreams(
            client,
            rank=rank,
            ranks=ranks,
            slots=SLOTS_PER_RANK * ranks,
            steps_ahead=4,
            bytes_ahead=MANY_BYTES,
        ).open(Cursor())

    def take(self, steps: int) -> tuple[float, int]:
        """Take steps; return the CPU seconds of this process, and its requests for layouts."""
        started, asked = time.process_time(), self._asked
        for _ in islice(self._steps, steps):
            pass
        return time.process_time() - started, self._asked - asked


def measure(workers: list[WorkerHandle], count: int, steps: int, shared: bool) -> dict[str, float]:
    """Measure steps of new ranks, after the first window."""
    agent = CountingAgent.remote()  # type: ignore[attr-defined]
    ranks = [TakingRank.remote() for _ in range(count)]  # type: ignore[attr-defined]
    sharing = NodeSharing(agent, "attempt") if shared else None
    ray.get([r.open.remote(workers, n, count, sharing) for n, r in enumerate(ranks)])
    ray.get([rank.take.remote(steps) for rank in ranks])
    processes = {
        "data worker": ray.get(workers[0].actor.process_id.remote()),
        "agent": ray.get(agent.process_id.remote()),
    }
    before = {name: cpu_seconds(process) for name, process in processes.items()}
    sent = ray.get(agent.sent.remote())
    taken = ray.get([rank.take.remote(steps) for rank in ranks])
    figures = {name: cpu_seconds(processes[name]) - start for name, start in before.items()}
    figures["ranks"] = sum(seconds for seconds, _ in taken)
    figures["all"] = sum(figures.values())
    requests = ray.get(agent.sent.remote()) - sent if shared else sum(n for _, n in taken)
    for actor in (*ranks, agent):
        ray.kill(actor)
    return {
        "layouts": requests / steps,
        **{name: seconds / steps * 1000 for name, seconds in figures.items()},
    }


def main() -> None:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=300)
    options = parse_arguments(parser, smoke="--ranks 2 --steps 3")
    with TemporaryDirectory() as folder, ray_session(None):
        recipe = load_recipe(find_recipe("phrasebook"), [f"data.dataset={folder}/dataset", *SMALL])
        manifest = prepare(recipe.data_settings, lambda progress: None)
        workers = DataWorkers(
            recipe.data_settings, manifest.identity, cpus=0, cache_bytes=MANY_BYTES
        )
        workers.start(1)
        with HeartbeatSender(lambda: workers.actors):
            print("| ranks | by the agent | layouts | data worker | agent | ranks | all |")
            print("|--:|---|--:|--:|--:|--:|--:|")
            for count in options.ranks:
                figures: dict[bool, list[dict[str, float]]] = defaultdict(list)
                for turn in range(1 if options.smoke else TURNS):
                    for shared in (False, True) if turn % 2 else (True, False):
                        figures[shared].append(
                            measure(workers.handles, count, options.steps, shared)
                        )
                for shared in (False, True):
                    rows = figures[shared]
                    cells = [f"{statistics.median(r[name] for r in rows):.2f}" for name in rows[0]]
                    print(f"| {count} | {'yes' if shared else 'no'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
