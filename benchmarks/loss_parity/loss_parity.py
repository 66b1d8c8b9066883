r"""Compare the loss curves of transloom and of a plain loop over torch.nn.Transformer.

Both train the network of multi30k-ende in fp32 on the same micro-batches, with the same loss and
schedule; plain_loop.py shares no code with transloom. Only the random numbers differ, for weights
and dropout. Each trains with several seeds. The curves, in means over 50 steps, agree if the
difference of the two means over seeds is nowhere larger than the spread of the seeds, which is
the larger of the two ranges.

    .venv/bin/python benchmarks/loss_parity/loss_parity.py \
        [--data FOLDER] [--steps 500] [--seeds 3] [--json]

data: a folder with the files of Multi30k, which are downloaded otherwise.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import first_steps, prepared_recipe
from benchmarks.support.trainings import complete, say, train_command
from cluster.recipe import Recipe, find_recipe, load_recipe
from data_pipeline.arrays import concatenate
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from run_store.record.metrics_file import train_lines
from trainer.tasks.translation import vocabulary_of

HERE = Path(__file__).resolve().parent
RECIPE = "multi30k-ende"
ANOTHER_SEED = 1000  # makes the plain loop draw different random numbers
Curves = list[list[float]]  # losses by seed, then by step


@dataclass(frozen=True)
class Row:
    """Range of consecutive steps, in all curves."""

    first: int
    last: int
    transloom: list[float]  # mean loss of these steps, by seed
    plain: list[float]

    @property
    def difference(self) -> float:
        return statistics.mean(self.transloom) - statistics.mean(self.plain)

    @property
    def spread(self) -> float:
        return max(max(losses) - min(losses) for losses in (self.transloom, self.plain))

    @property
    def agrees(self) -> bool:
        return abs(self.difference) <= self.spread


def overrides_of(arguments: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    return [
        *corpus_overrides(RECIPE, arguments.data),
        f"data.dataset={folder}/dataset",
        f"seed={seed}",
        "engine.precision=fp32",
        f"batching.micro_batches_per_step={arguments.micro_batches_per_step}",
        f"trainer.max_steps={arguments.steps}",
        f"trainer.validate_every_steps={arguments.steps}",
        f"checkpoints.every_steps={arguments.steps}",
        "decoding={beam_size: 1, max_extra_length: 1}",
        "cluster.ranks=1",
    ]


def write_input_of_plain_loop(recipe: Recipe, folder: Path, steps: int) -> list[str]:
    """Write the micro-batches of a run and its settings; return the loop's arguments."""
    store, manifest = open_dataset(recipe.data)
    micro_batches = [one for step in first_steps(recipe, steps) for one in step.micro_batches]
    arrays = {"pairs": np.array([len(one.pair_ids) for one in micro_batches])}
    for side in ("src", "tgt"):
        field = concatenate([one.fields[side] for one in micro_batches])
        arrays[f"{side}.ids"] = field.ids.astype(np.int64)
        arrays[f"{side}.lengths"] = field.lengths
    np.savez(folder / "micro_batches.npz", allow_pickle=False, **arrays)

    vocabulary = vocabulary_of(load_tokenizers(store, manifest))
    schedule, optimizer = recipe.trainer.schedule, recipe.trainer.optimizer
    settings = {
        **recipe.model.model_dump(mode="json"),
        "vocabulary": vocabulary.target_size,
        "pad": vocabulary.pad_id,
        "bos": vocabulary.bos_id,
        "micro_batches_per_step": recipe.batching.micro_batches_per_step,
        "label_smoothing": recipe.trainer.label_smoothing,
        "betas": optimizer.betas,
        "epsilon": optimizer.epsilon,
        "first_rate": schedule.initial_learning_rate,
        "peak_rate": schedule.peak_learning_rate,
        "warmup_steps": schedule.warmup_steps,
        "seed": recipe.seed + ANOTHER_SEED,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    return [str(folder / "micro_batches.npz"), str(folder / "settings.json")]


def train_both(arguments: argparse.Namespace, folder: Path, seed: int) -> tuple[list[float], ...]:
    """Train both with one seed, at the same time, with one thread each; return their losses."""
    overrides = overrides_of(arguments, folder, seed)
    recipe = load_recipe(find_recipe(RECIPE), overrides)
    place = folder / f"seed-{seed}"
    place.mkdir()
    plain = [sys.executable, str(HERE / "plain_loop.py")]
    plain += write_input_of_plain_loop(recipe, place, arguments.steps)
    with subprocess.Popen(plain, stdout=subprocess.PIPE, text=True) as loop:
        complete(train_command(RECIPE, overrides, place / "run"))
        output, _ = loop.communicate()
    assert loop.returncode == 0
    losses = [line.loss for line in train_lines(place / "run" / "metrics.jsonl")]
    return losses, [float(line) for line in output.splitlines()]


def rows_of(transloom: Curves, plain: Curves, steps_per_row: int) -> list[Row]:
    steps = len(transloom[0])
    assert all(len(curve) == steps for curve in (*transloom, *plain))
    rows = []
    for start in range(0, steps, steps_per_row):
        part = slice(start, min(start + steps_per_row, steps))
        means = [[statistics.mean(c[part]) for c in curves] for curves in (transloom, plain)]
        rows.append(Row(start + 1, part.stop, *means))
    return rows


def table(rows: list[Row]) -> str:
    lines = [
        "| steps | transloom, mean (range) | plain loop, mean (range) | difference | spread |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{statistics.mean(losses):.4f} ({min(losses):.4f}–{max(losses):.4f})"
            for losses in (row.transloom, row.plain)
        ]
        mark = "" if row.agrees else " larger"
        lines.append(
            f"| {row.first}–{row.last} | {cells[0]} | {cells[1]} | {row.difference:+.4f}{mark} | "
            f"{row.spread:.4f} |"
        )
    outside = sum(not row.agrees for row in rows)
    verdict = f"NOT the same curve: outside in {outside} rows" if outside else "the same curve"
    lines += ["", f"{verdict} (bound: the spread of the seeds, {len(rows)} rows)"]
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--data", help="folder with the files of Multi30k")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--micro-batches-per-step", type=int, default=1, help="of 1,024 tokens")
    arguments = parse_arguments(parser, smoke="--data phrasebook --steps 2 --seeds 1")
    curves: tuple[Curves, Curves] = ([], [])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared_recipe(RECIPE, overrides_of(arguments, folder, seed=1))
        for seed in range(1, arguments.seeds + 1):
            found = train_both(arguments, folder, seed)
            for curve, losses in zip(curves, found, strict=True):
                curve.append(losses)
            say(f"seed {seed}: {found[0][-1]:.4f}, {found[1][-1]:.4f}")
    rows = rows_of(*curves, steps_per_row=50)
    if arguments.json:
        print(json.dumps({"transloom": curves[0], "plain": curves[1]}))
    else:
        print(table(rows))
    if not arguments.smoke and not all(row.agrees for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
