"""The command `scripts/gpu_check run`. Needs nothing but Python."""

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


def stages_named(text: str) -> list[Stage]:
    """Return the stages of a list of names with commas between them; for argparse."""
    known = {stage.name: stage for stage in RUN_BY_STAGES}
    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(map(repr, unknown))}; give one or more of {', '.join(known)}, "
            "separated by commas"
        )
    return [known[name] for name in dict.fromkeys(names)]


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="FILE",
        help="JSON, replaced after each row, with the table in FILE.md beside it; if the file is "
        "there, rows that have a result are not repeated",
    )
    parser.add_argument(
        "--stages",
        type=stages_named,
        default=list(RUN_BY_STAGES),
        metavar="A,B",
        help=f"some of {','.join(stage.name for stage in RUN_BY_STAGES)}; default: all",
    )
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu: the same code with small sizes, to try the check; its results verify nothing",
    )
    parser.add_argument(
        "--parts",
        type=Path,
        metavar="FOLDER",
        help="what `collect` gathered; installed into a fresh environment first. Without it, the "
        "Python that runs this script is used",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="for runs, datasets and the environment, and kept; default: a temporary folder",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=TOTAL_MINUTES,
        help="limit of all stages together; rows that it leaves over are run by the same command "
        f"again (default: {TOTAL_MINUTES:g})",
    )
    parser.add_argument(
        "--stage-seconds",
        type=float,
        default=STAGE_SECONDS,
        help="limit of each stage, with which those of its rows grow; a slow machine may need more "
        f"(default: {STAGE_SECONDS:g})",
    )
    parser.add_argument(
        "--retry", action="store_true", help="run rows again that failed or were skipped"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the stages and return the exit code: whether all of their rows passed.

    Raises:
        ResultsError: the results file is of another device, or cannot be used.
    """
    # A request to end is an interruption: what was started ends too, and the rows are kept.
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
            say(f"installing the parts of {arguments.parts}")
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
    """Return what the results file holds; nothing if there is no file yet."""
    if not path.exists():
        return Results("cpu" if device == "cpu" else "cuda")
    results = read_results(path)
    if results.device != device:
        raise ResultsError(
            f"{path} has results of --device {results.device}, and this run is for {device}. "
            "Name another file with --results."
        )
    return results


def deviations_of(environment: Path) -> list[str]:
    """Return the versions that differ from the lock, as the installation noted them."""
    noted = environment / "deviations.json"
    return [str(each) for each in json.loads(noted.read_text())] if noted.exists() else []


def summarise(results: Results, stages: list[Stage], file: Path) -> int:
    """Say how many rows passed, failed and so on; return the exit code."""
    names = [f"{stage.name}/{row.key}" for stage in stages for row in stage.rows]
    found = [results.rows[name].result if name in results.rows else "not run" for name in names]
    counts = Counter(found)
    say(", ".join(f"{count} {result}" for result, count in counts.items()))
    say(f"results: {file}; table: {file.with_suffix('.md')}; logs: {file.with_suffix('.logs')}")
    if counts["not run"]:
        say("The same command goes on with the rows that were not run.")
    elif results.device == "cuda":
        say(f"Put them into the docs: scripts/gpu_check adopt {file}")
    return int(counts["failed"] + counts["not run"] > 0)


def say(text: str) -> None:
    print(text, flush=True)
