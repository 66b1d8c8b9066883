r"""Ray Train's part of recovery.py, which runs this script in a separate environment.

    settings.json ──▶ TorchTrainer: two CPU workers, gloo, DDP ──▶ steps.jsonl, rank-N.pid

A minimal loop as in Ray Train's documentation: prepare_model, forward, backward, AdamW, and a
checkpoint by ray.train.report after a number of steps; after a failure, it continues from
ray.train.get_checkpoint. Model, loss and the shapes of the micro-batches are transloom's; the
tokens are random numbers. There is no reading of data, no record, validation or tracking. Rank 0
writes a line after each optimizer step, with its process id, which changes when the workers are
restarted.

    PYTHONPATH=.bench-peers/imports PYTHONSAFEPATH=1 .bench-peers/ray-train/bin/python \
        benchmarks/recovery/ray_train.py FOLDER
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, prepare_model

from model.config.transformer import ModelConfig
from model.networks.transformer import Transformer, Vocabulary

STATE = "state.pt"


def random_micro_batch(
    shape: tuple[int, int, int], vocabulary: Vocabulary
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return source, target input and target output of random sentences without padding."""
    pairs, source_length, target_length = shape
    first = max(vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id) + 1
    source = torch.randint(first, vocabulary.source_size, (pairs, source_length))
    target = torch.randint(first, vocabulary.target_size, (pairs, target_length + 1))
    return source, target[:, :-1], target[:, 1:]


def train_loop(settings: dict[str, Any]) -> None:
    """Train in each of Ray Train's workers."""
    folder = Path(settings["folder"])
    rank = ray.train.get_context().get_world_rank()
    ranks = ray.train.get_context().get_world_size()
    vocabulary = Vocabulary(**settings["vocabulary"])
    torch.manual_seed(1)
    network = Transformer(ModelConfig(**settings["model"]), vocabulary)
    model = prepare_model(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], fused=True)
    step = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as path:
            state = torch.load(Path(path) / STATE)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    (folder / f"rank-{rank}.pid").write_text(str(os.getpid()))

    steps = settings["steps"]
    while True:
        shapes = steps[step % len(steps)]
        target_tokens = sum(pairs * length for pairs, _, length in shapes)
        mine = shapes[rank::ranks]
        for number, shape in enumerate(mine):
            model.require_backward_grad_sync = number == len(mine) - 1
            sums = model(*random_micro_batch(shape, vocabulary), settings["label_smoothing"])
            # multiply, because DDP averages over the ranks
            (sums.smoothed * ranks / target_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if rank == 0:
            line = {"step": step, "time": time.time(), "pid": os.getpid()}
            with (folder / "steps.jsonl").open("a") as record:
                record.write(json.dumps(line) + "\n")
        if step % settings["checkpoint_every_steps"] == 0:
            state = {
                "model": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            }
            _report(state if rank == 0 else None, step)


def _report(state: dict[str, Any] | None, step: int) -> None:
    """Report a step, with a checkpoint of the state, which each rank has completely."""
    if state is None:
        ray.train.report({"step": step})
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE)
        ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with settings.json; everything is put there")
    folder = parser.parse_args().folder.absolute()
    settings = json.loads((folder / "settings.json").read_text())
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    TorchTrainer(
        train_loop,
        train_loop_config={**settings, "folder": str(folder)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            name="run",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=-1),
            checkpoint_config=CheckpointConfig(num_to_keep=settings["keep_checkpoints"]),
        ),
    ).fit()


if __name__ == "__main__":
    main()
