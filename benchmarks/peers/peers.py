r"""Training speed of the whole path, beside Eole and Hugging Face's Seq2SeqTrainer.

One run of this script: the same corpus (Multi30k), the same 8,000 joint pieces, the same network,
the same budget of tokens per micro-batch, which is a step, and the same number of threads. The
contestants alternate; each trains for a while in processes of its own, and is then stopped. What
counts is the target tokens without padding per second, from 10 s after the first step.

    transloom       `transloom train`: Ray, a data worker, DeepSpeed, one rank
    Eole            `eole train` on the same pieces as text; bf16 is its pure bf16, `amp` torch's
                    mixed precision with fp32 weights
    Hugging Face    Seq2SeqTrainer and MarianMTModel on the same pieces as ids, grouped by length

On a machine that others use too, `--threads 1 --cpu-time` counts tokens per CPU second of all
processes of a contestant instead.

Each peer has an environment of its own, which is made when it is missing.

    .venv/bin/python benchmarks/peers/peers.py \
        [--data FOLDER] [--models tiny,base] [--rounds 3] [--json]

data: a folder with the files of Multi30k, which are downloaded otherwise.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contestants import SIZES, Eole, HuggingFace, Transloom
from benchmarks.peers.corpus import Corpus, export_corpus
from benchmarks.support.command_line import names_from, parse_arguments
from benchmarks.support.record import SETTLING_SECONDS
from benchmarks.support.speed import Contestant, measure

PRECISIONS = ("fp32", "bf16")
PEERS = ("eole", "hf")
GOALS = {"Eole": 1.5, "Hugging Face": 4.0}

Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Duel:
    """One comparison: a size of the network, and all contestants' rates by their names."""

    model: str
    rates: Rates

    def median(self, name: str) -> float:
        return statistics.median(self.rates[name])

    def best(self, who: str) -> float | None:
        """The best precision's median of a contestant, if it took part."""
        medians = [self.median(name) for name in self.rates if name.startswith(who)]
        return max(medians, default=None)

    def ratios(self) -> dict[str, tuple[float, float]]:
        """By peer: how many times as fast transloom is, best against best, and the goal."""
        ours = self.best("transloom")
        assert ours is not None
        peers = {peer: self.best(peer) for peer in GOALS}
        return {peer: (ours / found, GOALS[peer]) for peer, found in peers.items() if found}


def contestants_of(
    model: str,
    precisions: list[str],
    peers: list[str],
    corpus: Corpus,
    arguments: argparse.Namespace,
) -> list[tuple[str, Contestant]]:
    """The contestants with a network, by name, in the order of their turns."""
    size = SIZES[model]
    threads = arguments.threads
    found: list[tuple[str, Contestant]] = [
        (f"transloom {p}", Transloom(corpus, size, p, threads)) for p in precisions
    ]
    if "eole" in peers:
        python = Eole.python(arguments.torch_index)
        modes = [mode for p in precisions for mode in (("bf16", "amp") if p == "bf16" else (p,))]
        found += [(f"Eole {mode}", Eole(corpus, size, mode, threads, python)) for mode in modes]
    if "hf" in peers:
        python = HuggingFace.python(arguments.torch_index)
        found += [
            (f"Hugging Face {p}", HuggingFace(corpus, size, p, threads, python)) for p in precisions
        ]
    return found


def table(duels: list[Duel]) -> str:
    lines = ["| model | | target tokens/s, median | range | runs |", "|---|---|---|---|---|"]
    for duel in duels:
        for name, values in duel.rates.items():
            spread = f"{min(values):,.0f}–{max(values):,.0f}"
            lines.append(
                f"| {duel.model} | {name} | {duel.median(name):,.0f} | {spread} | {len(values)} |"
            )
    lines.append("")
    for duel in duels:
        for peer, (ratio, goal) in duel.ratios().items():
            reached = "reached" if ratio >= goal else "MISSED"
            lines.append(f"{reached}: {duel.model}, {ratio:.2f} times {peer}, goal {goal:g}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with the files of Multi30k")
    parser.add_argument("--models", type=names_from(SIZES), default=["tiny", "base"])
    parser.add_argument("--precisions", type=names_from(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--peers", type=names_from(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the steady state, a run")
    parser.add_argument("--without-peers", action="store_true", help="transloom alone")
    parser.add_argument(
        "--settling", type=float, default=SETTLING_SECONDS, help="seconds before the steady state"
    )
    parser.add_argument("--threads", type=int, default=2, help="of each contestant's torch")
    parser.add_argument(
        "--cpu-time", action="store_true", help="tokens per CPU second, on a machine others use too"
    )
    parser.add_argument("--torch-index", help="package index with torch for CPU, for the peers")
    parser.add_argument("--json", action="store_true")
    arguments = parse_arguments(
        parser,
        smoke="--data phrasebook --models tiny --precisions fp32 --rounds 1 --seconds 1 "
        "--settling 0 --without-peers",
    )
    duels = []
    with tempfile.TemporaryDirectory() as temporary:
        corpus = export_corpus(Path(temporary), arguments.data)
        for model in arguments.models:
            contestants = contestants_of(
                model,
                arguments.precisions,
                [] if arguments.without_peers else arguments.peers,
                corpus,
                arguments,
            )
            rates: Rates = {name: [] for name, _ in contestants}
            for round_number in range(arguments.rounds):
                for number, (name, contestant) in enumerate(contestants):
                    place = Path(temporary) / f"{model}-{round_number}-{number}"
                    contestant.enter(place)
                    speed = measure(contestant, arguments.seconds, arguments.settling)
                    rates[name].append(
                        speed.per_cpu_second if arguments.cpu_time else speed.per_second
                    )
                    print(f"{model}, {name}: {rates[name][-1]:,.0f}/s", file=sys.stderr, flush=True)
            duels.append(Duel(model, rates))
    if arguments.json:
        found = [{"model": d.model, "rates": d.rates, "ratios": d.ratios()} for d in duels]
        print(json.dumps(found))
    else:
        print(table(duels))


if __name__ == "__main__":
    main()
