"""Check whether this checkout computes the same bits as a base commit.

The script runs the same cases with both on this machine: with the base in a copy of its commit, and
with this checkout in a copy of the working tree, including uncommitted changes. Each copy has an
environment that imports only its own modules; third-party packages are those of .venv. The script
uses only the command line of both, so modules may have moved between them.

It compares the bytes of prepared datasets; the data digest, loss and gradient norm of each step;
the scores and samples of each validation; and the weights, moments and averages of each checkpoint.
Of a case that differs, it shows the first difference as BASE / HERE, since later ones follow from
it.

    scripts/same_bits HEAD                  do my uncommitted changes have an effect?
    scripts/same_bits HEAD~1 --quick        the last commit, four cases
    scripts/same_bits main --keep /tmp/two  keep the runs, for `transloom compare`
    scripts/same_bits v0.1.0 --speed        and how fast is it, compared with that version?

Exit codes: 0 equal, 1 different or failed, 2 wrong usage, or a copy that cannot be set up.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from two_commits import speed
from two_commits.cases import CASES, DATASETS, Case, Sides
from two_commits.checkout import (
    Checkout,
    CheckoutError,
    check_out_commit,
    copy_working_tree,
)
from two_commits.comparison import Comparison, ComparisonError

REPOSITORY = Path(__file__).resolve().parents[2]
DATA_VARIABLE = "TRANSLOOM_TEST_DATA"
DEFAULT_DATA = REPOSITORY.parent / "shared" / "data" / "multi30k"
SHOWN_DIFFERENCES = 3


def main() -> int:
    arguments = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # so that output in a file shows the progress, too
    if arguments.list:
        print("\n".join(_described(case) for case in CASES))
        return 0
    cases = _chosen(arguments)
    multi30k = arguments.data.resolve() if arguments.data.is_dir() else None
    started = time.monotonic()
    with ExitStack() as stack:
        folder = arguments.keep and arguments.keep.resolve()
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same_bits-")))
        try:
            base = check_out_commit(REPOSITORY, arguments.base, folder / "base")
            here = copy_working_tree(REPOSITORY, folder / "here")
        except CheckoutError as error:
            print(error, file=sys.stderr)
            return 2
        stack.callback(_end, base, here)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _give_up(base, here))
        sides = Sides(base, here, multi30k)
        skipped = [case.name for case in cases if multi30k is None and _needs_multi30k(case)]
        wrong = _compare(sides, [case for case in cases if case.name not in skipped])
        for name in skipped:
            print(f"{name}: SKIPPED, no Multi30k in {arguments.data}: name its folder with --data")
        if arguments.speed and not _measure(sides, multi30k, arguments.pairs):
            wrong.append("speed, which could not be measured")
    compared = len(cases) - len(skipped)
    without = f", {len(skipped)} skipped" if skipped else ""
    minutes = (time.monotonic() - started) / 60
    if wrong:
        verdict = f"DIFFERENT or failed: {', '.join(wrong)}; of"
    else:
        verdict = "The same bits in" if compared else "NOTHING COMPARED:"
    print(f"{verdict} {compared} cases, compared with {arguments.base}{without}; {minutes:.1f} min")
    return 1 if wrong or (skipped and not compared) else 0


def _compare(sides: Sides, cases: list[Case]) -> list[str]:
    """Return the names of datasets and cases that differ or failed."""
    datasets = list(dict.fromkeys(case.dataset for case in cases))
    wrong = [
        f"dataset {name}"
        for name in datasets
        if not _is_equal(f"dataset {name}", partial(sides.prepare, name))
    ]
    for number, case in enumerate(cases, 1):
        if not _is_equal(f"[{number}/{len(cases)}] {case.name}", partial(sides.run, case)):
            wrong.append(case.name)
    return wrong


def _is_equal(title: str, compare: Callable[[], Comparison]) -> bool:
    """Run a comparison, print its result, and return whether both are equal."""
    print(f"{title} … ", end="", flush=True)
    started = time.monotonic()
    try:
        found = compare()
    except (CheckoutError, ComparisonError) as error:
        print(f"FAILED\n    {error}")
        return False
    seconds = time.monotonic() - started
    if not found.differences:
        print(f"equal: {found.compared} ({seconds:.0f} s)")
        return True
    print(f"DIFFERENT, {len(found.differences)} differences, first (base / here):")
    for difference in found.differences[:SHOWN_DIFFERENCES]:
        print(f"    {difference}")
    return False


def _measure(sides: Sides, multi30k: Path | None, pairs: int) -> bool:
    """Measure the speed of both commits, and return whether the measurement succeeded."""
    try:
        speed.measure(sides, multi30k, pairs, print)
    except CheckoutError as error:
        print(f"speed … FAILED\n    {error}")
        return False
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/same_bits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", nargs="?", metavar="BASE", help="a commit, branch or tag")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument(
        "--cases",
        nargs="*",
        metavar="NAME",
        help="run only these cases; without a NAME, run none, such as for --speed alone",
    )
    parser.add_argument(
        "--quick", action="store_true", help="run only a few cases, during development"
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get(DATA_VARIABLE) or DEFAULT_DATA,
        help=f"folder with the files of Multi30k (default: ${DATA_VARIABLE}, or {DEFAULT_DATA}); "
        "without these files, cases with Multi30k are skipped",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder, and keep it"
    )
    parser.add_argument("--speed", action="store_true", help="also measure the speed of both")
    parser.add_argument(
        "--pairs", type=int, default=20, help="number of pairs of speed measurements (default: 20)"
    )
    arguments = parser.parse_args()
    if arguments.base is None and not arguments.list:
        parser.error("BASE is missing: name a commit, such as HEAD~1")
    if arguments.keep is not None and arguments.keep.exists():
        parser.error(f"--keep {arguments.keep} exists: name a new folder")
    if unknown := set(arguments.cases or ()) - {case.name for case in CASES}:
        parser.error(f"no case is named {', '.join(sorted(unknown))}: --list shows the names")
    if arguments.quick and arguments.cases is not None:
        parser.error("--quick chooses cases: leave out --cases")
    if arguments.pairs < 6:
        parser.error(f"--pairs {arguments.pairs} is too few for an interval: use at least 6")
    return arguments


def _chosen(arguments: argparse.Namespace) -> list[Case]:
    if arguments.cases is not None:
        return [case for case in CASES if case.name in arguments.cases]
    return [case for case in CASES if case.is_quick or not arguments.quick]


def _described(case: Case) -> str:
    how = f"{case.ranks} under Ray" if case.under_ray else "inline"
    quick = "quick  " if case.is_quick else "       "
    return f"{quick}{case.name:40} {how:12} {case.what:10} {' '.join(case.options)}"


def _needs_multi30k(case: Case) -> bool:
    return DATASETS[case.dataset].is_multi30k


def _end(*sides: Checkout) -> None:
    for side in sides:
        side.end()


def _give_up(*sides: Checkout) -> None:
    _end(*sides)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
