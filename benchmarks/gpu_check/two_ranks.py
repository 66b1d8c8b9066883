"""Train with two ranks on one machine, each in a process with its own device.

    python -m benchmarks.gpu_check.two_ranks DEVICE RANK NUMERICS FOLDER

Each rank trains a few steps with every ZeRO stage. Rank 0 writes the losses to FOLDER/losses.json.
"""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
from support.ranks import engine_jobs
from support.ranks.engine_jobs import MODEL, Shape

from benchmarks.gpu_check.outcomes import CannotRunError, Work, WrongResultError
from model.networks.transformer import Transformer
from trainer.process.distributed import process_group
from trainer.process.placement import Placement

STEPS = 5
RANKS = 2


def without_dropout() -> Transformer:
    return engine_jobs.make_model(MODEL.model_copy(update={"dropout": 0.0}))


def losses_of_ranks(work: Work, numerics: str) -> dict[int, list[float]]:
    """Return the losses of a training with two ranks, by ZeRO stage."""
    if work.is_gpu and torch.cuda.device_count() < RANKS:
        raise CannotRunError(
            f"two ranks need {RANKS} GPUs, but the machine has {torch.cuda.device_count()}"
        )
    folder = work.folder / f"two-ranks-{numerics}"
    folder.mkdir(exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    ranks = []
    for rank in range(RANKS):
        command = [sys.executable, "-m", "benchmarks.gpu_check.two_ranks"]
        command += [work.device, str(rank), numerics, str(folder)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(rank)}
        ranks.append(subprocess.Popen(command, env=environment))
    codes = [process.wait() for process in ranks]
    if any(codes):
        raise WrongResultError(f"the ranks ended with exit codes {codes}; see the stage's log")
    found: dict[str, list[float]] = json.loads((folder / "losses.json").read_text())
    return {int(stage): losses for stage, losses in found.items()}


def main() -> None:
    device, rank, numerics, folder = sys.argv[1:]
    placement = Placement(
        rank=int(rank),
        world_size=RANKS,
        local_rank=int(rank),
        local_world_size=RANKS,
        device="cuda" if device == "cuda" else "cpu",
        rendezvous=f"file://{folder}/rendezvous",
    )
    losses = {}
    with process_group(placement, timedelta(seconds=60)):
        for stage in range(4):
            shape = Shape(stage, numerics=numerics)
            engine = engine_jobs.make_engine(placement, shape, model=without_dropout())
            losses[stage] = engine_jobs.train_steps(engine, 1, STEPS)
            engine.destroy()
    if placement.rank == 0:
        (Path(folder) / "losses.json").write_text(json.dumps(losses))
    os._exit(0)  # skips the interpreter's shutdown, because ZeRO-3 leaves threads running


if __name__ == "__main__":
    main()
