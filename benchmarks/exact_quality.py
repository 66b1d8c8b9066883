"""Compare the training quality of exact and fast numerics.

The recipe multi30k-ende on one rank, with the same number of steps for each run: fast and exact
numerics with the recipe's seed, and fast numerics with a different seed. The change of the
validation loss by rounding gradients to grids must not exceed that by a different seed.

    .venv/bin/python benchmarks/exact_quality.py [--mirror FOLDER] [--steps N] [--at-once N]

mirror: a folder with the corpus, as in `transloom prepare multi30k-ende data.mirror=FOLDER`.
The runs are kept under --folder, so that the same command continues after an interruption.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.trainings import complete, say, train_command
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import ValidationLine

RECIPE = "multi30k-ende"
RUNS = {
    "fast": ["engine.numerics=fast", "seed=1"],
    "exact": ["engine.numerics=exact", "seed=1"],
    "fast, another seed": ["engine.numerics=fast", "seed=2"],
}
VALIDATIONS = 16


def train(folder: Path, name: str, settings: list[str]) -> list[ValidationLine]:
    """Train a run to its end, and return the validation lines of its record."""
    run = folder / name.replace(", ", "-").replace(" ", "-")
    say(f"{name}: {run}")
    complete(train_command(RECIPE, settings, run))
    lines = read_metrics(run / "metrics.jsonl")
    return [line for line in lines if isinstance(line, ValidationLine)]


def loss_of(line: ValidationLine) -> float:
    loss = line.scores["loss"].value
    assert loss is not None, line
    return loss


def table(validations: dict[str, list[ValidationLine]]) -> str:
    """Return each run's losses, and the differences between them."""
    lines = ["| step | " + " | ".join(validations) + " |", "|---" * (len(validations) + 1) + "|"]
    for row in zip(*validations.values(), strict=True):
        losses = " | ".join(f"{loss_of(line):.4f}" for line in row)
        lines.append(f"| {row[0].step} | {losses} |")
    fast, exact, other = (min(map(loss_of, found)) for found in validations.values())
    spread, difference = abs(other - fast), abs(exact - fast)
    reached = "reached" if difference <= spread or exact < fast else "MISSED"
    lines += [
        "",
        f"{reached}: best validation loss of exact numerics {exact - fast:+.4f} beside fast ones, "
        f"of another seed {other - fast:+.4f}",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, mirror=True)
    parser.add_argument("--steps", type=int, default=2400, help="half an hour or so on a core")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument("--folder", type=Path, default=Path("runs/exact-quality"))
    arguments = parse_arguments(parser, smoke="--mirror phrasebook --steps 2 --folder {folder}")
    every = max(1, arguments.steps // VALIDATIONS)
    settings = [
        f"trainer.max_steps={arguments.steps}",
        f"trainer.validate_every_steps={every}",
        f"checkpoints.every_steps={every}",
        "cluster.ranks=1",
        "tracking.wandb=disabled",
        f"data.dataset={arguments.folder.absolute()}/dataset",
        *corpus_overrides(RECIPE, arguments.mirror),
    ]
    prepared_recipe(RECIPE, settings)
    with ThreadPoolExecutor(arguments.at_once) as pool:
        found = pool.map(lambda name: train(arguments.folder, name, [*settings, *RUNS[name]]), RUNS)
        validations = dict(zip(RUNS, found, strict=True))
    if arguments.json:
        found = {name: [line.model_dump() for line in lines] for name, lines in validations.items()}
        print(json.dumps(found))
    else:
        print(table(validations))


if __name__ == "__main__":
    main()
