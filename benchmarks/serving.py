"""Response times and throughput of `transloom serve`, compared with the batch command.

The sentences of a file are sent to one server, each in a separate request, from a number of
concurrent clients. In turn with this, the translator of `transloom translate` gets all of them in
one call, with as many processes as the server has replicas, while the server is idle. The start of
either is not measured. A round has one measurement of each; figures are the median of the rounds.

    .venv/bin/python benchmarks/serving.py RUN FILE [--sentences N] [--clients 1 8 64]
        [--replicas N] [--rounds N] [--json]
"""

import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.trainings import serving
from foundation.process_pool import cores
from transloom import ServedTranslator
from transloom.cli.sweep_runs import TRANSLOOM
from transloom.inference.translator import Translator


@dataclass(frozen=True)
class Served:
    """Measurements of a number of clients."""

    clients: int
    p50_milliseconds: float
    p95_milliseconds: float
    sentences_per_second: float


@contextmanager
def server(run: Path, replicas: int) -> Iterator[str]:
    """A server's address."""
    command = [*TRANSLOOM, "serve", str(run), "--replicas", str(replicas)]
    with serving(command, r"Serving .*: (http://\S+)") as (_, found):
        yield found[1]


def serve(address: str, sentences: list[str], clients: int) -> Served:
    """Send each sentence in a separate request."""
    client = ServedTranslator(address, patience_seconds=600)

    def ask(sentence: str) -> float:
        began = time.perf_counter()
        client.translate([sentence])
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        seconds = sorted(pool.map(ask, sentences))
    took = time.perf_counter() - began
    quantiles = statistics.quantiles(seconds, n=20)
    return Served(clients, 1000 * quantiles[9], 1000 * quantiles[18], len(sentences) / took)


def translate(translator: Translator, sentences: list[str]) -> float:
    """Return the sentences per second of one call."""
    began = time.perf_counter()
    translator.translate(sentences)
    return len(sentences) / (time.perf_counter() - began)


def median(rounds: list[Served]) -> Served:
    return Served(
        rounds[0].clients,
        *(
            statistics.median(getattr(one, name) for one in rounds)
            for name in ("p50_milliseconds", "p95_milliseconds", "sentences_per_second")
        ),
    )


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--replicas", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=3)
    given = parse_arguments(
        parser,
        smoke="{run} {corpus}/train.en --sentences 8 --clients 2 --replicas 1 --rounds 1",
    )
    sentences = given.file.read_text(encoding="utf-8").split("\n")[: given.sentences]
    translator = Translator.load(given.run)
    served: dict[int, list[Served]] = {clients: [] for clients in given.clients}
    batch = []
    with (
        server(given.run, given.replicas) as address,
        translator.in_processes(given.replicas),
    ):
        serve(address, sentences[:50], 8)
        translate(translator, sentences[:50])  # its processes have started
        for _ in range(given.rounds):
            batch.append(translate(translator, sentences))
            for clients, rounds in served.items():
                rounds.append(serve(address, sentences, clients))
    found = [median(rounds) for rounds in served.values()]
    if given.json:
        print(json.dumps({"batch": statistics.median(batch), "served": [*map(asdict, found)]}))
        return
    print(f"one call, {given.replicas} processes: {statistics.median(batch):.0f} sentences/s")
    for one in found:
        share = one.sentences_per_second / statistics.median(batch)
        print(
            f"{one.clients} at once: p50 {one.p50_milliseconds:.0f} ms, p95 "
            f"{one.p95_milliseconds:.0f} ms, {one.sentences_per_second:.0f} sentences/s "
            f"({share:.2f} of one call)"
        )


if __name__ == "__main__":
    main()
