"""Implement the command `scripts/gpu_check run`. The module needs only Python."""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.gpu_check.install import installed
from benchmarks.gpu_check.plan import RUN_BY_STAGES, STAGE_SECONDS, TOTAL_MINUTES, Stage
from benchmarks.gpu_check.results import Results, ResultsError, read_results, replace_text
from benchmarks.gpu_check.runner import Runner, work_folder
from benchmarks.gpu_check.table import markdown
from benchmarks.support.command_line import names_from


def stages_named(text: str) -> list[Stage]:
    """Return the stages in a list of names that are separated by commas; an argparse type."""
    known = {stage.name: stage for stage in RUN_BY_STAGES}
    return [known[name] for name in names_from(known)(text)]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON file for the results, which is replaced after each row; a file with the suffix "
        ".md gets the table. If FILE exists, rows that have a result in it are not repeated",
    )
    parser.add_argument(
        "--stages",
        type=stages_named,
        default=list(RUN_BY_STAGES),
        metavar="A,B",
        help="names of the stages to run, separated by commas: "
        f"{','.join(stage.name for stage in RUN_BY_STAGES)} (default: all)",
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="device to check (default: %(default)s); cpu runs the same code with small sizes, to "
        "try the check, and its results verify nothing",
    )
    parser.add_argument(
        "--parts",
        type=Path,
        metavar="FOLDER",
        help="folder with the parts from `collect`, which are first installed into a new "
        "environment (default: use the Python that runs this script)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="folder for runs, datasets and the environment, which is kept at the end (default: a "
        "temporary folder)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=TOTAL_MINUTES,
        help="time limit of all stages together, in minutes; repeat the command to run the "
        f"remaining rows (default: {TOTAL_MINUTES:g})",
    )
    parser.add_argument(
        "--stage-seconds",
        type=float,
        default=STAGE_SECONDS,
        help="time limit of each stage, in seconds; the limits of its rows grow in proportion. "
        f"Raise it on a slow machine (default: {STAGE_SECONDS:g})",
    )
    parser.add_argument(
        "--retry", action="store_true", help="repeat rows that failed or were skipped"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the stages and return the exit code: 0 if every row passed or was skipped, otherwise 1.

    Raises:
        ResultsError: the results file is for another device, or cannot be used.
    """
    # Handle SIGTERM like an interrupt: end all started processes, and keep the rows so far.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ends = time.monotonic() + 60 * arguments.minutes
    results = results_so_far(arguments.results, arguments.device)
    if arguments.retry:
        for row in [row for row in results.rows.values() if row.result != "passed"]:
            if row.stage in (stage.name for stage in arguments.stages):
                del results.rows[row.name]
    with work_folder() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        python = Path(sys.executable)
        if arguments.parts is not None:
            say(f"installing the parts in {arguments.parts}")
            python = installed(arguments.parts, folder / "environment")
            results.deviations = deviations_of(folder / "environment")
        for deviation in results.deviations:
            say(f"deviates from the lock: {deviation}")
        try:
            Runner(
                python=python,
                folder=folder,
                results=results,
                results_file=arguments.results.resolve(),
                say=say,
                stage_seconds=arguments.stage_seconds,
                ends=ends,
            ).run(arguments.stages)
        finally:
            results.write(arguments.results)
            table = markdown(results.rows, arguments.stages)
            replace_text(arguments.results.with_suffix(".md"), table)
    return summarise(results, arguments.stages, arguments.results)


def results_so_far(path: Path, device: str) -> Results:
    """Return the contents of the results file; empty results if there is no file yet."""
    if not path.exists():
        return Results("cpu" if device == "cpu" else "cuda")
    results = read_results(path)
    if results.device != device:
        raise ResultsError(
            f"{path} has results of --device {results.device}, but this run has --device {device}. "
            "Name another file with --results."
        )
    return results


def deviations_of(environment: Path) -> list[str]:
    """Return the deviations from the lock that the installation recorded."""
    noted = environment / "deviations.json"
    return [str(each) for each in json.loads(noted.read_text())] if noted.exists() else []


def summarise(results: Results, stages: list[Stage], file: Path) -> int:
    """Print the number of rows by result, and the files; return the exit code."""
    names = [f"{stage.name}/{row.key}" for stage in stages for row in stage.rows]
    found = [results.rows[name].result if name in results.rows else "not run" for name in names]
    counts = Counter(found)
    say(", ".join(f"{count} {result}" for result, count in counts.items()))
    say(f"results: {file}; table: {file.with_suffix('.md')}; logs: {file.with_suffix('.logs')}")
    if counts["not run"]:
        say("To run the remaining rows, repeat the command.")
    elif results.device == "cuda":
        say(f"To put the results into the docs, run: scripts/gpu_check adopt {file}")
    return int(counts["failed"] + counts["not run"] > 0)


def say(text: str) -> None:
    print(text, flush=True)
