"""Cost of the whole path: `transloom train` against a bare loop over the same micro-batches.

Both train the same model on the same steps of a prepared dataset with one CPU thread. The bare
loop holds all micro-batches in memory and computes forward, backward and torch's fused AdamW, and
nothing else: no Ray, no data worker, no DeepSpeed, no digest, no record. Runs alternate, so that
a machine whose speed drifts slows both; the figure is the median of the pairs' ratios.

    .venv/bin/python benchmarks/path_cost.py [--recipe RECIPE] [KEY=VALUE …]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import first_steps, prepared_recipe
from benchmarks.support.trainings import complete, train_command
from cluster.recipe import Recipe
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from model.losses.loss import CrossEntropy
from run_store.record.metrics_file import train_lines
from trainer.tasks.batch import to_device
from trainer.tasks.network import build_network
from trainer.training.schedule import learning_rate

WARM_UP_STEPS = 10


def bare_loop(recipe: Recipe, steps: int) -> float:
    """Return the target tokens per second of the bare loop."""
    torch.set_num_threads(recipe.cluster.threads_per_rank)
    store, manifest = open_dataset(recipe.data)
    tokenizers = load_tokenizers(store, manifest)
    model = build_network(recipe.training(), tokenizers)
    if recipe.engine.precision == "bf16":
        model.bfloat16()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    stream = first_steps(recipe, steps)
    cpu = torch.device("cpu")
    data = [[to_device(m, model.vocabulary, cpu) for m in s.micro_batches] for s in stream]
    tokens = [step.units for step in stream]
    for number, batches in enumerate(data):
        if number == WARM_UP_STEPS:
            started = time.monotonic()
        for batch in batches:
            sums = model(*batch.inputs, CrossEntropy(0.1))
            (sums.smoothed / tokens[number]).backward()
        optimizer.param_groups[0]["lr"] = learning_rate(
            recipe.trainer.schedule, number + 1, recipe.model.width
        )
        optimizer.step()
        optimizer.zero_grad()
    return sum(tokens[WARM_UP_STEPS:]) / (time.monotonic() - started)


def whole_path(recipe: str, overrides: list[str], steps: int, folder: Path) -> float:
    """Return the target tokens per second of `transloom train`, from the times of two lines."""
    run = folder / "run"
    complete(train_command(recipe, overrides, run))
    lines = train_lines(run / "metrics.jsonl")
    assert len(lines) == steps
    seconds = lines[-1].time - lines[WARM_UP_STEPS - 1].time
    return sum(line.target_tokens for line in lines[WARM_UP_STEPS:]) / seconds


def main() -> None:
    parser = benchmark_parser(__doc__, overrides=True)
    parser.add_argument("--recipe", default="phrasebook")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parse_arguments(
        parser,
        smoke="--steps 12 --pairs 1 data.dataset={folder}/dataset tracking.wandb=disabled "
        "decoding.beam_size=1 decoding.max_extra_length=1",
    )
    overrides = [
        *arguments.overrides,
        "cluster.ranks=1",
        f"trainer.max_steps={arguments.steps}",
        f"trainer.validate_every_steps={arguments.steps}",
        f"checkpoints.every_steps={arguments.steps}",
    ]
    recipe = prepared_recipe(arguments.recipe, overrides)
    if arguments.bare:
        print(bare_loop(recipe, arguments.steps))
        return
    ratios = []
    for pair in range(arguments.pairs):
        me = [sys.executable, __file__, "--bare", "--recipe", arguments.recipe]
        me += ["--steps", str(arguments.steps), *arguments.overrides]
        output = subprocess.run(me, check=True, capture_output=True, text=True).stdout
        bare = float(output.splitlines()[-1])
        with tempfile.TemporaryDirectory() as folder:
            whole = whole_path(arguments.recipe, overrides, arguments.steps, Path(folder))
        ratios.append(whole / bare)
        print(
            f"pair {pair + 1}: bare loop {bare:,.0f}, transloom train {whole:,.0f} target "
            f"tokens/s, ratio {whole / bare:.3f}",
            flush=True,
        )
    median = statistics.median(ratios)
    print(f"the path costs {1 - median:.1%} (median; {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
