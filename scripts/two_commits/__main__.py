"""Does this checkout compute the same bits as a base commit?

Both are run through the same cases on this machine: the base from a copy of its commit, this side
from a copy of the working tree, uncommitted changes included. Each has an environment in which only
its own modules are imported; third-party packages are those of .venv. Both are driven by the
command line alone, so modules may have moved between them.

Compared are the bytes of prepared datasets; of each step its data digest, loss and gradient norm;
of each validation its scores and samples; of each checkpoint its weights, moments and averages. Of
a case that differs the first difference is shown, as BASE / HERE, since later ones follow from it.

    scripts/same_bits HEAD                  do my uncommitted changes have an effect?
    scripts/same_bits HEAD~1 --quick        the last commit, four cases
    scripts/same_bits main --keep /tmp/two  keep the runs, for `transloom compare`
    scripts/same_bits v0.1.0 --speed        and how fast is it, beside that version?

Exit codes: 0 equal, 1 different or failed, 2 wrong usage, or a side that cannot be set up.
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
    sys.stdout.reconfigure(line_buffering=True)  # a file shows how far it is, too
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
            print(f"{name}: SKIPPED, no Multi30k in {arguments.data}: name it with --data")
        if arguments.speed and not _measure(sides, multi30k, arguments.pairs):
            wrong.append("speed, which could not be measured")
    compared = len(cases) - len(skipped)
    without = f", {len(skipped)} skipped" if skipped else ""
    minutes = (time.monotonic() - started) / 60
    if wrong:
        verdict = f"DIFFERENT or failed: {', '.join(wrong)}; of"
    else:
        verdict = "The same bits in" if compared else "NOTHING COMPARED:"
    print(f"{verdict} {compared} cases beside {arguments.base}{without}; {minutes:.1f} min")
    return 1 if wrong or (skipped and not compared) else 0


def _compare(sides: Sides, cases: list[Case]) -> list[str]:
    """The names of datasets and cases that are not equal."""
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
    """Compares and says the result."""
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
    """Measures the speed of both sides and returns whether that could be done."""
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
        "--cases", nargs="*", metavar="NAME", help="only these; no name: none, as for --speed alone"
    )
    parser.add_argument("--quick", action="store_true", help="a few cases, for while you work")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get(DATA_VARIABLE) or DEFAULT_DATA,
        help=f"the files of Multi30k; default: ${DATA_VARIABLE}, or {DEFAULT_DATA}. Without them "
        "its cases are skipped",
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder, and leave it there"
    )
    parser.add_argument("--speed", action="store_true", help="measure speed, too")
    parser.add_argument("--pairs", type=int, default=20, help="of measurements; default: 20")
    arguments = parser.parse_args()
    if arguments.base is None and not arguments.list:
        parser.error("name the BASE commit, such as HEAD~1")
    if arguments.keep is not None and arguments.keep.exists():
        parser.error(f"--keep {arguments.keep} exists: name a new folder")
    if unknown := set(arguments.cases or ()) - {case.name for case in CASES}:
        parser.error(f"no case is named {', '.join(sorted(unknown))}: see --list")
    if arguments.quick and arguments.cases is not None:
        parser.error("--quick chooses cases: leave out --cases")
    if arguments.pairs < 6:
        parser.error(f"--pairs {arguments.pairs} gives no interval: take at least 6")
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
