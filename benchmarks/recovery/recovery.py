"""From kill -9 of a rank to the next new optimizer step, compared with Ray Train V2.

One run of this script, two CPU ranks, the same model, batches of the same shapes, a checkpoint
every few steps. The contestants alternate; each trains for a while, loses a rank to kill -9,
recovers, trains for a while, and loses the next one. The measured time is from the kill to the end
of the first step that had not been trained before. It includes detection, restart, loading the
checkpoint, and repeating the later steps.

    transloom                   `transloom train`, as the recipe has it
    … without warm spares       the same with cluster.warm_spares=false
    Ray Train V2                a minimal loop: ray_train.py
    … polling every 0.1 s       the same with RAY_TRAIN_HEALTH_CHECK_INTERVAL_S=0.1 (default: 2)

Ray Train runs in a separate environment, which is created if it is missing.

    .venv/bin/python benchmarks/recovery/recovery.py [--rounds 3] [--kills 2] [--json] [KEY=VALUE …]
"""

import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Protocol

import psutil

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import first_steps, prepared_recipe
from benchmarks.support.environments import PEERS, environment_with, peer_variables
from benchmarks.support.trainings import (
    Training,
    TransloomTraining,
    descendants,
    running,
    say,
    wait_for,
)
from cluster.recipe import Recipe
from data_pipeline.batching.batch import MicroBatch
from data_pipeline.dataset.manifest import open_dataset
from data_pipeline.tokenizers.tokenizer import load_tokenizers
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import Resumed, TrainLine
from trainer.tasks.translation import vocabulary_of

HERE = Path(__file__).resolve().parent
RAY_TRAIN = ["ray[train]==2.60.0", "torch==2.13.0", "pydantic"]
RANKS = 2
CHECKPOINT_EVERY_STEPS = 5
SETTINGS = [
    f"cluster.ranks={RANKS}",
    "trainer.max_steps=1000000",
    "trainer.validate_every_steps=1000000",
    f"checkpoints.every_steps={CHECKPOINT_EVERY_STEPS}",
]
DIFFERENT_STEPS = 50  # number of steps whose shapes Ray Train's loop repeats
TIMEOUT_SECONDS = 180.0
GOAL_SECONDS = 5.0
GOAL_TIMES_FASTER = 2.0


class Contestant(Training, Protocol):
    """Training that recovers from the loss of a rank without help."""

    def starts(self) -> list[list[float]]:
        """Return the times of new steps by start of the ranks, without starts that have none."""

    def ranks(self, driver: psutil.Process) -> list[int]:
        """Return the process ids of the ranks that train."""


class Transloom(TransloomTraining):
    def starts(self) -> list[list[float]]:
        starts: list[list[float]] = [[]]
        for line in read_metrics(self.run / "metrics.jsonl"):
            if isinstance(line, TrainLine):
                starts[-1].append(line.time)
            elif isinstance(line, Resumed):
                starts.append([])
        return [times for times in starts if times]

    def ranks(self, driver: psutil.Process) -> list[int]:
        actors = [p for p in descendants(driver) if "RankActor" in name_of(p)]
        # The oldest processes are the ranks, because spares are started later.
        return [p.pid for p in sorted(actors, key=psutil.Process.create_time)[:RANKS]]


class RayTrain:
    def __init__(
        self,
        folder: Path,
        python: Path,
        settings: dict[str, object],
        polling_seconds: float | None = None,
    ) -> None:
        self.folder = folder
        self.environment = {"RAY_TRAIN_V2_ENABLED": "1", **peer_variables()}
        if polling_seconds:
            self.environment["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = str(polling_seconds)
        self._python = python
        (folder / "settings.json").write_text(json.dumps(settings))

    def command(self) -> list[str]:
        return [str(self._python), str(HERE / "ray_train.py"), str(self.folder)]

    def starts(self) -> list[list[float]]:
        record = self.folder / "steps.jsonl"
        text = record.read_text() if record.exists() else ""
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
        starts, done = [], 0
        for _, group in groupby(lines, key=lambda line: line["pid"]):
            new = [line for line in group if line["step"] > done]
            starts.append([line["time"] for line in new])
            done += len(new)
        return [times for times in starts if times]

    def ranks(self, driver: psutil.Process) -> list[int]:
        return [int(path.read_text()) for path in sorted(self.folder.glob("rank-*.pid"))]


def name_of(process: psutil.Process) -> str:
    """Return the title of a process; Ray's workers have the name of their current task."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def recoveries(
    contestant: Contestant, kills: int, quiet_seconds: float, dice: random.Random
) -> list[float]:
    """Return the seconds from each kill to the next new step."""
    found = []
    with running(contestant) as driver:
        for number in range(kills):
            wait_for_starts(number + 1, contestant, driver)
            time.sleep(quiet_seconds + dice.uniform(0, 2))
            ranks = contestant.ranks(driver)
            assert len(ranks) == RANKS, f"the ranks are {ranks}"
            before = len(contestant.starts())
            assert before == number + 1, "the ranks were started again though none was killed"
            killed = time.time()
            os.kill(dice.choice(ranks), signal.SIGKILL)
            wait_for_starts(before + 1, contestant, driver)
            found.append(contestant.starts()[before][0] - killed)
    return found


def wait_for_starts(count: int, contestant: Contestant, driver: psutil.Process) -> None:
    """Wait until this number of starts of the ranks have reached a new step."""

    def have_come() -> bool:
        return len(contestant.starts()) >= count

    wait_for("new step", have_come, contestant, driver, TIMEOUT_SECONDS)


def settings_of(recipe: Recipe) -> dict[str, object]:
    """Write the settings of Ray Train's loop: the model, and the shapes of its micro-batches."""
    store, manifest = open_dataset(recipe.data)
    steps = first_steps(recipe, DIFFERENT_STEPS)
    return {
        "model": recipe.model.model_dump(mode="json"),
        "vocabulary": asdict(vocabulary_of(load_tokenizers(store, manifest))),
        "steps": [[_shape(micro_batch) for micro_batch in s.micro_batches] for s in steps],
        "label_smoothing": recipe.trainer.label_smoothing,
        "learning_rate": 0.001,
        "checkpoint_every_steps": recipe.checkpoints.every_steps,
        "keep_checkpoints": recipe.checkpoints.keep_last,
    }


def _shape(micro_batch: MicroBatch) -> tuple[int, int, int]:
    lengths = [int(micro_batch.fields[field].lengths.max()) for field in ("src", "tgt")]
    return len(micro_batch.pair_ids), lengths[0], lengths[1]


def table(seconds: dict[str, list[float]]) -> str:
    lines = ["| | median | range | kills |", "|---|---|---|---|"]
    for name, values in seconds.items():
        spread = f"{min(values):.1f}–{max(values):.1f} s"
        lines.append(f"| {name} | {statistics.median(values):.1f} s | {spread} | {len(values)} |")
    lines.append("")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ours = medians["transloom"]
    reached = "reached" if ours <= GOAL_SECONDS else "MISSED"
    lines.append(f"{reached}: {ours:.1f} s, goal at most {GOAL_SECONDS:.0f} s")
    if ray_train := medians.get("Ray Train V2"):
        reached = "reached" if ray_train >= GOAL_TIMES_FASTER * ours else "MISSED"
        lines.append(
            f"{reached}: {ray_train / ours:.1f} times as fast as Ray Train V2, "
            f"goal {GOAL_TIMES_FASTER:.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, overrides=True)
    parser.add_argument("--recipe", default="phrasebook")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant")
    parser.add_argument("--kills", type=int, default=2, help="in each run")
    parser.add_argument(
        "--quiet-seconds",
        type=float,
        default=15.0,
        help="training between a recovery and the next kill, and up to 2 more",
    )
    parser.add_argument("--peers-env", type=Path, default=PEERS / "ray-train")
    parser.add_argument("--torch-index", help="package index with torch for CPU, for Ray Train")
    parser.add_argument("--without-peers", action="store_true")
    arguments = parse_arguments(
        parser,
        smoke="--rounds 1 --kills 1 --quiet-seconds 0 --without-peers tracking.wandb=disabled",
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        overrides = [*SETTINGS, f"data.dataset={folder}/dataset", *arguments.overrides]
        recipe = prepared_recipe(arguments.recipe, overrides)
        no_spares = [*overrides, "cluster.warm_spares=false"]
        contestants: dict[str, Callable[[Path], Contestant]] = {
            "transloom": lambda place: Transloom(place, arguments.recipe, overrides),
            "transloom without warm spares": lambda place: Transloom(
                place, arguments.recipe, no_spares
            ),
        }
        if not arguments.without_peers:
            python = environment_with(RAY_TRAIN, arguments.peers_env, arguments.torch_index)
            settings = settings_of(recipe)
            contestants |= {
                "Ray Train V2": lambda place: RayTrain(place, python, settings),
                "Ray Train V2, polling every 0.1 s": lambda place: RayTrain(
                    place, python, settings, polling_seconds=0.1
                ),
            }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for round_number in range(arguments.rounds):
            for number, (name, contestant_in) in enumerate(contestants.items()):
                place = folder / f"{round_number}-{number}"
                place.mkdir()
                # All contestants of a round have the same times and victims.
                dice = random.Random(round_number)
                found = recoveries(
                    contestant_in(place), arguments.kills, arguments.quiet_seconds, dice
                )
                seconds[name] += found
                say(f"{name}: {', '.join(f'{value:.2f} s' for value in found)}")
    print(json.dumps(seconds) if arguments.json else table(seconds))


if __name__ == "__main__":
    main()
