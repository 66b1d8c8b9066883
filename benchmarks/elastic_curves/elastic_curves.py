r"""One recipe, one curve: a run that changes its number of ranks, compared with one that does not.

Multi30k in fp32, the recipe's settings except for larger micro-batches, 60 steps, three runs:

    undisturbed    2 ranks from the first step to the last
    continued      stopped and continued with another cluster.ranks: 2, 1, 3, 2
    elastic        cluster.ranks={min: 1, max: 3}, without a stop, while nodes of its Ray cluster
                   are killed and added: 2, 1, 3, 2 ranks again

Data digests must be equal at every step, losses within the bound of 1e-5, or with --numerics exact
equal to the last bit. The picture is drawn in a separate environment, in which matplotlib is
installed if it is missing.

    .venv/bin/python benchmarks/elastic_curves/elastic_curves.py \
        [--mirror FOLDER] [--numerics exact]
        [--picture FILE.png]

mirror: a folder with the corpus, as in `transloom prepare multi30k-ende data.mirror=FOLDER`.
"""

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.environments import draw
from benchmarks.support.trainings import (
    TransloomTraining,
    complete,
    running,
    say,
    train_command,
    wait_for,
)
from run_store.record.metrics_file import train_lines
from run_store.record.metrics_lines import TrainLine

HERE = Path(__file__).resolve().parent
RECIPE = "multi30k-ende"
RANKS = [2, 1, 3, 2]
BOUNDS = {"fast": 1e-5, "exact": 0.0}  # maximum relative differences between losses
TIMEOUT_SECONDS = 300.0
SETTINGS = [
    "engine.precision=fp32",
    # Large micro-batches make the run slow enough: it grows when there has been room for a minute,
    # which should be about 20 of the 60 steps.
    "batching.max_tokens_per_micro_batch=2048",
    "batching.micro_batches_per_step=8",
    # The validation is short, because it is not compared.
    "data.validation={source: 'builtin:phrasebook/validation.fr', "
    "target: 'builtin:phrasebook/validation.en'}",
    "data.tests={}",
    "decoding={beam_size: 1, max_extra_length: 1}",
    "checkpoints.every_steps=3",
    "tracking.wandb=disabled",
]


def train(run: Path, overrides: list[str], parts: list[tuple[int, int]]) -> None:
    """Train in parts, each with a number of ranks and a last step."""
    share = "cluster.cpus_per_rank=0.5"  # so that two cores suffice for three ranks
    for ranks, step in parts:
        say(f"{run.name}: {ranks} ranks up to step {step}")
        settings = [f"cluster.ranks={ranks}", f"trainer.max_steps={step}", share]
        complete(train_command(RECIPE, [*overrides, *settings], run))


def train_while_nodes_come_and_go(
    folder: Path, overrides: list[str], steps: int
) -> list[TrainLine]:
    """Train in one run on nodes with one CPU each, which have room for one rank."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from support.cluster.ray_head import RayHead, RayNode

    with ExitStack() as stack:
        ray_folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
        head = RayHead(Path(ray_folder), cpus=1)
        stack.callback(head.stop)
        os.environ["RAY_AUTH_TOKEN"] = head.token

        def added_node() -> RayNode:
            node = head.add_node(cpus=1)
            stack.callback(node.kill)
            return node

        node = added_node()
        settings = ["cluster.ranks={min: 1, max: 3}", f"trainer.max_steps={steps}"]
        settings.append(f"cluster.address={head.address}")
        training = TransloomTraining(folder, RECIPE, [*overrides, *settings])
        driver = stack.enter_context(running(training))

        def wait_for_steps(count: int, *, ranks: int) -> None:
            """Wait until the newest `steps` steps have been trained with this number of ranks."""

            def are_newest() -> bool:
                newest = train_lines(training.run / "metrics.jsonl")[-count:]
                return [line.world_size for line in newest] == [ranks] * count

            what = f"{count} steps of {ranks} ranks"
            wait_for(what, are_newest, training, driver, TIMEOUT_SECONDS)

        wait_for_steps(12, ranks=2)
        say("elastic: a node is killed")
        node.kill()
        wait_for_steps(1, ranks=1)
        say("elastic: two nodes are added")
        node, _ = added_node(), added_node()
        wait_for_steps(14, ranks=3)
        say("elastic: a node is killed")
        node.kill()
        wait_for_steps(1, ranks=2)
        driver.wait(TIMEOUT_SECONDS)
    return train_lines(training.run / "metrics.jsonl")


def compare(reference: list[TrainLine], lines: list[TrainLine]) -> dict[str, Any]:
    """Return a run's curve with the reference's: the parts, and the differences."""
    pairs = list(zip(reference, lines, strict=True))
    assert [a.step for a, _ in pairs] == [b.step for _, b in pairs]
    differences = [abs(b.loss / a.loss - 1) for a, b in pairs]
    parts = []
    for ranks, group in groupby(lines, key=lambda line: line.world_size):
        steps = [line.step for line in group]
        parts.append({"ranks": ranks, "first": steps[0], "last": steps[-1]})
    return {
        "loss": [line.loss for line in lines],
        "difference": differences,
        "other_digests": [a.step for a, b in pairs if a.data_digest != b.data_digest],
        "parts": parts,
    }


def table(runs: dict[str, dict[str, Any]], bound: float) -> str:
    lines = [
        "| run | ranks | steps | data | losses, largest relative difference |",
        "|---|---|---|---|---|",
    ]
    for name, run in runs.items():
        for part in run["parts"]:
            steps = range(part["first"], part["last"] + 1)
            largest = max(run["difference"][step - 1] for step in steps)
            others = len(set(steps) & set(run["other_digests"]))
            data = f"{others} DIFFER" if others else "equal"
            difference = f"{largest:.1e}" if largest else "none: the same to the last bit"
            span = f"{part['first']}–{part['last']}"
            lines.append(f"| {name} | {part['ranks']} | {span} | {data} | {difference} |")
            name = ""
    lines.append("")
    largest = max(max(run["difference"]) for run in runs.values())
    equal = not any(run["other_digests"] for run in runs.values())
    reached = "reached" if equal and largest <= bound else "MISSED"
    data = "equal data at every step" if equal else "data that DIFFER"
    lines.append(f"{reached}: {data}, losses within {largest:.1e}, bound {bound:.0e}")
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, mirror=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=RANKS, help="of the run that is continued"
    )
    parser.add_argument("--without-elastic", action="store_true", help="no third run")
    parser.add_argument("--numerics", choices=list(BOUNDS), default="fast")
    parser.add_argument(
        "--picture", type=Path, default=HERE.parents[1] / "docs" / "images" / "elastic.png"
    )
    parser.add_argument("--without-picture", action="store_true")
    arguments = parse_arguments(
        parser,
        smoke="--mirror phrasebook --steps 2 --ranks 2 1 --without-elastic --without-picture",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        numerics = f"engine.numerics={arguments.numerics}"
        corpus = corpus_overrides(RECIPE, arguments.mirror)
        overrides = [*corpus, *SETTINGS, numerics, f"data.dataset={folder}/dataset"]
        prepared_recipe(RECIPE, overrides)
        steps = arguments.steps
        count = len(arguments.ranks)
        parts = [(ranks, steps * (n + 1) // count) for n, ranks in enumerate(arguments.ranks)]
        train(folder / "undisturbed", overrides, [(2, steps)])
        train(folder / "continued", overrides, parts)
        reference = train_lines(folder / "undisturbed" / "metrics.jsonl")
        runs = {
            "stopped and continued": compare(
                reference, train_lines(folder / "continued" / "metrics.jsonl")
            )
        }
        if not arguments.without_elastic:
            elastic = train_while_nodes_come_and_go(folder, overrides, steps)
            runs["nodes lost and added"] = compare(reference, elastic)
    bound = BOUNDS[arguments.numerics]
    curves = {"undisturbed": [line.loss for line in reference], "bound": bound, "runs": runs}
    print(json.dumps(curves) if arguments.json else table(runs, bound))
    if not arguments.without_picture:
        draw(HERE / "plot.py", json.dumps(curves), arguments.picture)


if __name__ == "__main__":
    main()
