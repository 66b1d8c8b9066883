"""Time from `transloom submit`, and from `train --address`, to a run's first step.

A Ray head is started on this machine, and new runs of a tiny model on the phrase book are trained
on it for two steps, by both commands in turn. The measured time is from the start of the command to
the time of the first step in the run's record. With `submit`, it includes the check of the head,
the job's start by Ray, and the search for free resources. In a third case, it includes the upload
of the code, because the client has a different version than the head. The goal: the median of
`submit` is at most 1.5 times that of `train`.

    .venv/bin/python benchmarks/time_to_submit.py [--runs N] [--json]
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from cluster.launchers.ray_job.job_package import installed_sources
from cluster.recipe import find_recipe, load_recipe
from foundation.terminal import Terminal
from run_store.record.metrics_file import train_lines
from transloom.cli.prepare import prepare_dataset
from transloom.cli.sweep_runs import TRANSLOOM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.cluster.ray_head import RayHead
from support.command import run_command

GOAL = 1.5
POLL_SECONDS = 0.2
SETTINGS = [
    "batching={max_tokens_per_micro_batch: 128, micro_batches_per_step: 8, window_shards: 1}",
    "model={encoder_layers: 1, decoder_layers: 1, width: 32, feed_forward_width: 64, heads: 4}",
    "engine.precision=fp32",
    "tracking.wandb=disabled",
    "cluster.ranks=1",
    "trainer.max_steps=2",
]


def client(code: Path | None, head: RayHead) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return the command; `code` is a different transloom to upload, or None."""
    environment = {"RAY_AUTH_TOKEN": head.token}
    if code:
        environment["PYTHONPATH"] = str(code)

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        done = run_command(*TRANSLOOM, *words, **environment)
        if done.returncode:
            raise SystemExit(f"transloom {words[0]} ended with {done.returncode}: {done.stderr}")
        return done

    return run


def another_code(folder: Path) -> Path:
    """Return a copy of this transloom that differs in a comment."""
    for name, path in installed_sources().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    with (folder / "model" / "loss.py").open("a", encoding="utf-8") as file:
        file.write("# another one\n")
    return folder


def first_step(run: Path) -> float:
    """Wait for the run's first recorded step, and return its time."""
    while True:
        if lines := train_lines(run / "metrics.jsonl"):
            return lines[0].time
        time.sleep(POLL_SECONDS)


def measure(runs: int) -> dict[str, list[float]]:
    """Return the seconds from the command to the first step, by case."""
    seconds: dict[str, list[float]] = {"train": [], "submit": [], "submit with code": []}
    with tempfile.TemporaryDirectory(prefix="ray-") as name:
        folder = Path(name)
        settings = [*SETTINGS, f"data.dataset={folder / 'dataset'}"]
        path = find_recipe("phrasebook").resolve()  # the uploaded code contains no recipes
        recipe = load_recipe(path, settings)
        prepare_dataset(recipe, Terminal(stderr=True), overwrite=False, processes=None)
        head = RayHead(folder, cpus=2)
        try:
            same, other = client(None, head), client(another_code(folder / "code"), head)
            for number in range(runs):
                for case in seconds:
                    run = folder / f"{case.replace(' ', '-')}-{number}"
                    words = [path, *settings, "--run", run]
                    started = time.time()
                    if case == "train":
                        same("train", *words, "--address", head.address)
                    else:
                        ask = same if case == "submit" else other
                        words += ["--address", head.dashboard, "--json"]
                        answer = json.loads(ask("submit", *words).stdout)
                        assert answer["sent_code"] == (ask is other), answer
                        took = time.time() - started
                        Terminal(stderr=True).print(f"{case}: the command took {took:.1f} s")
                    seconds[case].append(first_step(run) - started)
                    if case != "train":  # wait, so that the next run starts on a free cluster
                        same("jobs", "logs", answer["job"], "-f", "--address", head.dashboard)
        finally:
            head.stop()
    return seconds


def main() -> None:
    parser = benchmark_parser(__doc__, json=True)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parse_arguments(parser, smoke="--runs 1")
    seconds = measure(arguments.runs)
    base = statistics.median(seconds["train"])
    result = {
        case: {
            "median": round(statistics.median(values), 2),
            "range": [round(min(values), 2), round(max(values), 2)],
            "times_train": round(statistics.median(values) / base, 2),
        }
        for case, values in seconds.items()
    }
    if arguments.json:
        print(json.dumps({"goal": GOAL, **result}))
        return
    for case, row in result.items():
        low, high = row["range"]
        print(f"{case:18}{row['median']:7.1f} s  {low}-{high} s  {row['times_train']:.2f} × train")


if __name__ == "__main__":
    main()
