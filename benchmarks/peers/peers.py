r"""Training speed of the whole path, compared with Eole and Hugging Face's Seq2SeqTrainer.

One run of this script: the same corpus (Multi30k), the same 8,000 joint pieces, the same network,
the same budget of tokens per micro-batch, which is a step, and the same number of threads. The
contestants alternate; each trains for a while in separate processes, and is then stopped. The
figure is target tokens without padding, from the time when only one process is still busy: per
second, and per CPU second of all processes and of the one that trains.

    transloom       `transloom train`: Ray, a data worker, DeepSpeed, one rank
    Eole            `eole train` on the same pieces as text; bf16 is its pure bf16, `amp` torch's
                    mixed precision with fp32 weights
    Hugging Face    Seq2SeqTrainer and MarianMTModel on the same pieces as ids, grouped by length

On a machine with other users, `--threads 1 --cpu-time` compares tokens per CPU second of all
processes of a contestant instead of tokens per second.

Each peer has a separate environment, which is created if it is missing.

    .venv/bin/python benchmarks/peers/peers.py \
        [--data FOLDER] [--models tiny,base] [--rounds 3] [--json]

data: a folder with the files of Multi30k, which are downloaded otherwise.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contestants import SIZES, Eole, HuggingFace, transloom
from benchmarks.peers.corpus import Corpus, export_corpus
from benchmarks.support.command_line import benchmark_parser, names_from, parse_arguments
from benchmarks.support.environments import hugging_face_python
from benchmarks.support.record import SETTLING_SECONDS
from benchmarks.support.speed import Contestant, Speed
from benchmarks.support.turns import Speeds, take_turns
from benchmarks.support.turns import table as speeds_table

PRECISIONS = ("fp32", "bf16")
PEERS = ("eole", "hf")
GOALS = {"Eole": 1.5, "Hugging Face": 4.0}


@dataclass(frozen=True)
class Duel:
    """Comparison for one size of the network: the speeds of all contestants, by name."""

    model: str
    speeds: Speeds

    def best(self, who: str, kind: int) -> float | None:
        """Return a contestant's median speed with its best precision; None if it is missing."""
        medians = [
            statistics.median(speed[kind] for speed in found)
            for name, found in self.speeds.items()
            if name.startswith(who)
        ]
        return max(medians, default=None)

    def ratios(self, kind: int) -> dict[str, tuple[float, float]]:
        """Return, by peer, the ratio of transloom's best speed to the peer's, and its goal."""
        ours = self.best("transloom", kind)
        assert ours is not None
        peers = {peer: self.best(peer, kind) for peer in GOALS}
        return {peer: (ours / found, GOALS[peer]) for peer, found in peers.items() if found}


def contestants_of(
    model: str,
    precisions: list[str],
    peers: list[str],
    corpus: Corpus,
    arguments: argparse.Namespace,
) -> dict[str, Contestant]:
    """Return the contestants for a network, by name, in the order of their turns."""
    size = SIZES[model]
    threads = arguments.threads
    found: dict[str, Contestant] = {
        f"transloom {p}": transloom(corpus, size, p, threads) for p in precisions
    }
    if "eole" in peers:
        python = Eole.python(arguments.torch_index)
        modes = [mode for p in precisions for mode in (("bf16", "amp") if p == "bf16" else (p,))]
        found |= {f"Eole {mode}": Eole(corpus, size, mode, threads, python) for mode in modes}
    if "hf" in peers:
        python = hugging_face_python(arguments.torch_index)
        found |= {
            f"Hugging Face {p}": HuggingFace(corpus, size, p, threads, python) for p in precisions
        }
    return found


def summary(duels: list[Duel], kind: int) -> str:
    lines = []
    for duel in duels:
        lines += [f"**{duel.model}**", "", speeds_table(duel.speeds, {}), ""]
    for duel in duels:
        for peer, (ratio, goal) in duel.ratios(kind).items():
            reached = "reached" if ratio >= goal else "MISSED"
            lines.append(f"{reached}: {duel.model}, {ratio:.2f} times {peer}, goal {goal:g}")
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--data", help="folder with the files of Multi30k")
    parser.add_argument("--models", type=names_from(SIZES), default=["tiny", "base"])
    parser.add_argument("--precisions", type=names_from(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--peers", type=names_from(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the steady state, a run")
    parser.add_argument("--without-peers", action="store_true", help="transloom alone")
    parser.add_argument(
        "--settling", type=float, default=SETTLING_SECONDS, help="seconds at least, before that"
    )
    parser.add_argument("--threads", type=int, default=2, help="of each contestant's torch")
    parser.add_argument(
        "--cpu-time", action="store_true", help="tokens per CPU second, on a machine others use too"
    )
    parser.add_argument("--torch-index", help="package index with torch for CPU, for the peers")
    arguments = parse_arguments(
        parser,
        smoke="--data phrasebook --models tiny --precisions fp32 --rounds 1 --seconds 1 "
        "--settling 0 --without-peers",
    )
    duels = []
    with tempfile.TemporaryDirectory() as temporary:
        corpus = export_corpus(Path(temporary), arguments.data)
        for model in arguments.models:
            peers = [] if arguments.without_peers else arguments.peers
            contestants = contestants_of(model, arguments.precisions, peers, corpus, arguments)
            speeds = take_turns(
                contestants, arguments.rounds, arguments.seconds, arguments.settling
            )
            duels.append(Duel(model, speeds))
    kind = Speed._fields.index("per_cpu_second" if arguments.cpu_time else "per_second")
    if arguments.json:
        found = [{"model": d.model, "speeds": d.speeds, "ratios": d.ratios(kind)} for d in duels]
        print(json.dumps(found))
    else:
        print(summary(duels, kind))


if __name__ == "__main__":
    main()
