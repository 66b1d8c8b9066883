"""From kill -9 of a rank to the next new step, by parts, for models of several sizes.

Two CPU ranks of an embedded Ray train a network of the wanted size of state, with warm spares. One
rank is killed in each run, after a checkpoint on the disk and, in every second run, after one in
memory. The times come from the run's log and record:

    noticed        until the supervisor reports the loss
    started        until it starts the new ranks, which take the state of a step
    built          until the slower of the ranks is built: the stages below, as it reports them
    new step       until the first step that had not been trained before
    repeated       steps that were trained again

    .venv/bin/python benchmarks/recovery/parts.py [--widths N ...] [--kills N] [KEY=VALUE …]
"""

import json
import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import psutil

from benchmarks.recovery.recovery import RANKS, Transloom
from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.trainings import running, say, wait_for
from run_store.checkpoints.folder_names import list_checkpoints
from run_store.checkpoints.format import read_header
from run_store.folder import RunFolder
from run_store.record.metrics_file import read_metrics
from run_store.record.metrics_lines import Resumed, TrainLine
from run_store.record.run_status import run_status_of

SETTINGS = [
    f"cluster.ranks={RANKS}",
    "trainer.max_steps=1000000",
    "trainer.validate_every_steps=1000000",
    "tracking.wandb=disabled",
]
TIERS = {"disk": ["checkpoints.every_steps=20"], "memory": ["checkpoints.memory_every_steps=5"]}
TIMEOUT_SECONDS = 600.0
BUILT = re.compile(r"(\S+) detail: rank \d+: built in ([\d.]+) s: (.*)")


def log_after(run: RunFolder, moment: float, text: str) -> tuple[float, str]:
    """Return time and text of the first entry of the log with this text after the given time."""
    for line in run.log.read_text().splitlines():
        stamp, _, entry = line.partition(" ")
        seconds = datetime.fromisoformat(stamp).timestamp()
        if seconds > moment and text in entry:
            return seconds, entry
    raise AssertionError(text)


def resumed(run: RunFolder) -> int:
    return sum(isinstance(line, Resumed) for line in read_metrics(run.metrics))


def first_new_step(run: RunFolder, known: int) -> float | None:
    lines = [line for line in read_metrics(run.metrics) if isinstance(line, TrainLine)]
    return next((line.time for line in lines if line.step > known), None)


def kill_one(contestant: Transloom, driver: psutil.Process, tier: str) -> dict[str, float | str]:
    run = RunFolder(contestant.run)
    before = resumed(run) if run.metrics.exists() else 0

    def is_saved() -> bool:
        vitals = run_status_of(run.path).vitals
        if vitals is None or len(vitals.ranks) < RANKS:
            return False
        if tier == "memory":
            return vitals.memory_checkpoint is not None
        return bool(list_checkpoints(run.checkpoints))

    wait_for("saved state", is_saved, contestant, driver, TIMEOUT_SECONDS)
    time.sleep(15)  # wait for the warm spares
    last = read_metrics(run.metrics)[-1].step
    killed = time.time()
    os.kill(contestant.ranks(driver)[-1], signal.SIGKILL)
    wait_for("restart", lambda: resumed(run) > before, contestant, driver, TIMEOUT_SECONDS)
    known = max(last, *(x.step for x in read_metrics(run.metrics) if isinstance(x, TrainLine)))
    is_new = partial(first_new_step, run, known)
    wait_for("new step", is_new, contestant, driver, TIMEOUT_SECONDS)
    noticed, _ = log_after(run, killed, "restart")
    started, _ = log_after(run, killed, "starting")
    built = [
        (datetime.fromisoformat(found[1]).timestamp(), found[3])
        for found in map(BUILT.match, run.log.read_text().splitlines())
        if found and datetime.fromisoformat(found[1]).timestamp() > killed
    ]
    finished, stages = max(built)
    events = [line for line in read_metrics(run.metrics) if isinstance(line, Resumed)]
    first = is_new()
    assert first is not None
    return {
        "noticed": noticed - killed,
        "started": started - killed,
        "built": finished - killed,
        "new step": first - killed,
        "repeated": float(known - events[-1].from_step),
        "stages": stages,
    }


def state_gigabytes(run: RunFolder) -> float:
    header = read_header(list_checkpoints(run.checkpoints)[-1])
    return sum(file.bytes for file in header.files) / 1e9


def table(rows: Sequence[dict[str, float | str]]) -> str:
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{row[n]:.2f}" if isinstance(row[n], float) else str(row[n]) for n in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, overrides=True)
    parser.add_argument("--recipe", default="phrasebook")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 768, 2560])
    parser.add_argument("--kills", type=int, default=3, help="of each width and tier")
    arguments = parse_arguments(parser, smoke="--widths 32 --kills 1")
    rows: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        common = [*SETTINGS, f"data.dataset={folder}/dataset", *arguments.overrides]
        prepared_recipe(arguments.recipe, common)
        for width in arguments.widths:
            size = 0.0
            for tier, settings in TIERS.items():
                place = folder / f"{width}-{tier}"
                place.mkdir()
                model = [f"model.width={width}", f"model.feed_forward_width={4 * width}"]
                contestant = Transloom(
                    place, arguments.recipe, [*common, *TIERS["disk"], *settings, *model]
                )
                with running(contestant) as driver:
                    found = [kill_one(contestant, driver, tier) for _ in range(arguments.kills)]
                    if tier == "disk":
                        size = state_gigabytes(RunFolder(place / "run"))
                numbers = [name for name, value in found[0].items() if isinstance(value, float)]
                row: dict[str, float | str] = {"GB": size, "from": tier}
                row |= {n: statistics.median(float(one[n]) for one in found) for n in numbers}
                row["stages of one kill, in s"] = found[-1]["stages"]
                rows.append(row)
                say(f"{row}")
    print(json.dumps(rows) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
