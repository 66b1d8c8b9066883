"""How long a run takes from the command to its first step, when it resumes early and late.

A run is trained to step 10. Copies of it are resumed with `transloom train` at step 10, and at
step 1,000,000: there the checkpoint's header has that step and its cursor, two thousand epochs on,
which is all that such a checkpoint would have otherwise. The clock runs from the start of the
command to the time of the first line that the run records; the starts alternate. The goal is that
the medians are equal within the noise: resuming must not walk through the steps before.

The third case has what such a run has recorded as well: metrics.jsonl of a million lines.

    .venv/bin/python benchmarks/time_to_first_batch.py [--mirror FOLDER] [--json]

mirror: a folder with the corpus, as in `transloom prepare multi30k-ende data.mirror=FOLDER`.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.support.command_line import benchmark_parser, parse_arguments
from benchmarks.support.corpora import corpus_overrides
from benchmarks.support.datasets import prepared_recipe
from benchmarks.support.trainings import complete, say, train_command
from cluster.recipe import Recipe
from data_pipeline.batching.plan import Cursor
from data_pipeline.batching.window import WindowReader
from data_pipeline.dataset.manifest import open_dataset
from trainer.checkpoints.folder_names import folder_name
from trainer.checkpoints.format import HEADER, read_header
from trainer.record.metrics_file import train_lines
from trainer.record.metrics_lines import TrainLine, parse_line

RECIPE = "multi30k-ende"
EARLY = 10
TAIL_BYTES, TAIL_LINES = 100_000, 10  # end of the record that holds the line of the last step
SETTINGS = [
    "data.validation={source: 'builtin:phrasebook/validation.fr', "
    "target: 'builtin:phrasebook/validation.en'}",
    "data.tests={}",
    "batching={max_tokens_per_micro_batch: 128, micro_batches_per_step: 8, window_shards: 1}",
    "model={encoder_layers: 1, decoder_layers: 1, width: 32, feed_forward_width: 64, heads: 4}",
    "decoding={beam_size: 1, max_extra_length: 1}",
    "engine.precision=fp32",
    "tracking.wandb=disabled",
    "cluster.ranks=1",
]


def cursor_of(recipe: Recipe, step: int) -> Cursor:
    """Where a step lies, if every epoch has as many micro-batches as the first."""
    store, manifest = open_dataset(recipe.data)
    reader = WindowReader(store, manifest, recipe.data_settings)
    windows = reader.layout(0, 0).windows_per_epoch
    sizes = [len(reader.layout(0, window).units) for window in range(windows)]
    epoch, offset = divmod(step * recipe.batching.micro_batches_per_step, sum(sizes))
    window = int(np.searchsorted(np.cumsum(sizes), offset, side="right"))
    offset -= sum(sizes[:window])
    return Cursor(epoch, window, min(offset, len(reader.layout(epoch, window).units)))


def train(run: Path, overrides: list[str], step: int) -> float:
    """Train or resume a run up to a step; return the seconds from command to that step's line."""
    started = time.time()
    complete(train_command(RECIPE, [*overrides, f"trainer.max_steps={step}"], run))
    with (run / "metrics.jsonl").open("rb") as record:
        record.seek(max(0, record.seek(0, os.SEEK_END) - TAIL_BYTES))
        lines = [parse_line(line) for line in record.read().split(b"\n")[-TAIL_LINES:-1]]
    (line,) = [line for line in lines if isinstance(line, TrainLine) and line.step == step]
    return line.time - started


def make_late(run: Path, late: int, cursor: Cursor) -> None:
    """Turn the run's only checkpoint into one of a late step."""
    checkpoints = run / "checkpoints"
    folder = (checkpoints / folder_name(EARLY)).rename(checkpoints / folder_name(late))
    late_ones = {"step": late, "optimizer_step": late, "cursor": cursor.to_json()}
    header = read_header(folder).model_copy(update=late_ones)
    (folder / HEADER).write_text(header.to_json())  # with the header's sha256


def write_long_record(short: Path, long: Path, late: int) -> None:
    """Repeat the lines of a run's first steps, as if it had trained up to a late step."""
    lines = train_lines(short)
    with long.open("w") as file:
        for step in range(1, late + 1):
            line = lines[step % len(lines)].model_copy(update={"step": step})
            file.write(line.to_json() + "\n")


def measure(
    folder: Path, overrides: list[str], late: int, repetitions: int
) -> dict[str, list[float]]:
    """Return the seconds to the first line in each case."""
    recipe = prepared_recipe(RECIPE, overrides)
    train(folder / "run", overrides, EARLY)
    cursor = cursor_of(recipe, late)
    write_long_record(folder / "run" / "metrics.jsonl", folder / "record.jsonl", late)
    cases = (f"step {EARLY}", f"step {late:,}", f"step {late:,}, with its record")
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(repetitions):
        for number, case in enumerate(cases):
            run = folder / "copy"
            shutil.copytree(folder / "run", run)
            if number > 0:
                make_late(run, late, cursor)
            if number > 1:
                shutil.copyfile(folder / "record.jsonl", run / "metrics.jsonl")
            seconds[case].append(train(run, overrides, 1 + (late if number else EARLY)))
            shutil.rmtree(run)
            say(f"{case}: {seconds[case][-1]:.2f} s; load {os.getloadavg()[0]:.1f}")
    return seconds


def table(seconds: dict[str, list[float]]) -> str:
    lines = [f"{'resumed at':34}{'median':>9}{'range':>16}"]
    for case, values in seconds.items():
        spread = f"{min(values):.2f}–{max(values):.2f}"
        lines.append(f"{case:34}{statistics.median(values):>7.2f} s{spread:>14} s")
    early, late, *_ = map(statistics.median, seconds.values())
    lines.append(f"{list(seconds)[1]} instead of {EARLY}: {late - early:+.2f} s (medians)")
    return "\n".join(lines)


def main() -> None:
    parser = benchmark_parser(__doc__, json=True, mirror=True)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--late", type=int, default=1_000_000, help="the late step")
    arguments = parse_arguments(parser, smoke="--mirror phrasebook --repetitions 1 --late 1000")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = corpus_overrides(RECIPE, arguments.mirror)
        overrides = [*corpus, *SETTINGS, f"data.dataset={folder}/dataset"]
        seconds = measure(folder, overrides, arguments.late, arguments.repetitions)
    print(json.dumps(seconds) if arguments.json else table(seconds))


if __name__ == "__main__":
    main()
