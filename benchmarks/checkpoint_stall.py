"""How long a checkpoint stalls training: written in the background, or before training continues.

One run: a model of 60 million parameters in fp32 with Adam's moments, 720 MB of state, owned by one
rank, or by two processes that own half of it each. Saves of both kinds alternate: one is written in
the background; when it is on the disk, the next one blocks until it is written. With two ranks, the
slower one determines the stall. A row has the median and the range over the repetitions; the goal
is a stall of at most 0.2 s.

    .venv/bin/python benchmarks/checkpoint_stall.py [--repetitions N] [--folder FOLDER] [--json]

folder: where the checkpoints are written, and removed again; by default the system's folder for
temporary files. It should be on a disk, not in memory.
"""

import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from model.config.transformer import ModelConfig
from model.networks.transformer import Transformer, Vocabulary
from run_store.checkpoints.commit import partial_folder
from run_store.checkpoints.fragment import MASTER, Fragment
from trainer.process.placement import Placement
from trainer.state.checkpoint_writer import CheckpointWriter
from trainer.zero.adamw import AdamWKind

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from support.records.checkpoints import Listener, make_header

GOAL_SECONDS = 0.2
NETWORKS = {  # each with the size of its vocabulary
    "base": (ModelConfig(), 31_000),  # the paper's base model: 60 million parameters in all
    "tiny": (ModelConfig(encoder_layers=1, decoder_layers=1, width=64, heads=4), 1000),
}
ATTEMPT = "benchmark"
KINDS = {"behind the training": False, "waited for": True}


def shapes(network: str) -> dict[str, torch.Size]:
    """Return the shapes of a network's parameters."""
    config, pieces = NETWORKS[network]
    vocabulary = Vocabulary(pieces, pieces, pad_id=0, bos_id=1, eos_id=2)
    with torch.device("meta"):
        model = Transformer(config, vocabulary)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def share(network: str, rank: int, world_size: int) -> Iterator[Fragment]:
    """Yield the state that a rank owns; each parameter is cut into equal parts."""
    for name, shape in shapes(network).items():
        start = shape.numel() * rank // world_size
        stop = shape.numel() * (rank + 1) // world_size
        for kind in (MASTER, *AdamWKind.moments):
            yield Fragment(kind, name, start, torch.randn(stop - start))


def be_a_rank(pipe: Connection, work: Path, network: str, rank: int, world_size: int) -> None:
    """Save on request, and send the stall in seconds."""
    torch.set_num_threads(1)
    owned, heard = list(share(network, rank, world_size)), Listener()
    writer = CheckpointWriter(
        lambda: owned,
        work=work,
        attempt=ATTEMPT,
        placement=Placement(rank=rank, world_size=world_size, local_world_size=world_size),
        supervision=heard,  # type: ignore[arg-type]
    )
    pipe.send(sum(fragment.tensor.nbytes for fragment in owned))
    while (task := pipe.recv()) is not None:
        step, final = task
        stall = writer.save(make_header(step), final=final)
        writer.finish()
        assert not heard.failed, heard.failed
        pipe.send(stall)
    writer.close()


def stalls(
    folder: Path, network: str, world_size: int, repetitions: int
) -> tuple[int, dict[str, list[float]]]:
    """Return the state's size in bytes, and the slowest rank's stalls after a warm-up."""
    work = Path(tempfile.mkdtemp(prefix="checkpoint-stall-", dir=folder))
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=be_a_rank, args=(theirs, work, network, rank, world_size)
            )
            process.start()
            pipes.append(ours)
            processes.append(process)
        state_bytes = sum(pipe.recv() for pipe in pipes)
        found: dict[str, list[float]] = {name: [] for name in KINDS}
        for repetition in range(repetitions + 1):
            for number, (name, final) in enumerate(KINDS.items()):
                step = 2 * repetition + number
                for pipe in pipes:
                    pipe.send((step, final))
                slowest = max(pipe.recv() for pipe in pipes)
                if repetition > 0:
                    found[name].append(slowest)
                shutil.rmtree(partial_folder(work, step, ATTEMPT))
        for pipe in pipes:
            pipe.send(None)
    finally:
        for process in processes:
            process.join(timeout=60)
        shutil.rmtree(work, ignore_errors=True)
    return state_bytes, found


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--network", choices=list(NETWORKS), default="base")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parse_arguments(parser, smoke="--repetitions 1 --network tiny")
    rows = []
    for ranks in (1, 2):
        state_bytes, found = stalls(
            arguments.folder, arguments.network, ranks, arguments.repetitions
        )
        for name, seconds in found.items():
            rows.append(
                {
                    "ranks": ranks,
                    "save": name,
                    "state_megabytes": round(state_bytes / 1e6),
                    "median_seconds": statistics.median(seconds),
                    "range_seconds": [min(seconds), max(seconds)],
                }
            )
    if arguments.json:
        print(json.dumps(rows))
        return
    print("| ranks | state, MB | save | stall, s, median | range |\n|---|---|---|---|---|")
    for row in rows:
        low, high = row["range_seconds"]
        print(
            f"| {row['ranks']} | {row['state_megabytes']} | {row['save']} "
            f"| {row['median_seconds']:.3f} | {low:.3f}–{high:.3f} |"
        )
    behind = max(row["median_seconds"] for row in rows if row["save"] == "behind the training")
    print(f"\nbehind the training: {behind:.3f} s at most; the goal is {GOAL_SECONDS} s")


if __name__ == "__main__":
    main()
