"""Count the kernel launches and host waits of a training step, and compare them with budgets.

A step on a GPU is bound by the host that starts kernels and waits for results. Both are counted on
a CPU, on the branches that a GPU takes, by part and beside a plain loop of torch with the same
network and loss. The networks have the depth of base, so the counts are those of a real step.

    .venv/bin/python benchmarks/launches/ledger.py              check, as `make check` does
    .venv/bin/python benchmarks/launches/ledger.py --renew      lower the budgets to the counts
    .venv/bin/python benchmarks/launches/ledger.py --raise WHY  accept higher counts, with a reason
"""

import argparse
import sys
import time
import warnings
from datetime import timedelta

import torch

from benchmarks.launches import table
from benchmarks.launches.counter import PARTS
from benchmarks.launches.reads import all_reads
from benchmarks.launches.steps import PLACEMENT, ROWS, Counts, count_plain, count_row, total
from benchmarks.support.command_line import parse_arguments
from trainer.process.distributed import process_group


def count(rows: int) -> dict[str, Counts]:
    """Return the counts of the first rows and of their plain loops, and print each."""
    ledger: dict[str, Counts] = {}
    print(f"| launches | {' | '.join(PARTS)} | total | waits |")
    print("|---|" + "--:|" * (len(PARTS) + 2))
    for row in ROWS[:rows]:
        if row.plain not in ledger:
            ledger[row.plain] = count_plain(row.form, row.precision)
            _print(row.plain, ledger[row.plain])
        ledger[str(row)] = count_row(row)
        _print(str(row), ledger[str(row)])
    return ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, help="count only the first rows, and check nothing")
    parser.add_argument("--renew", action="store_true", help="lower the budgets to the counts")
    parser.add_argument(
        "--raise", dest="reason", metavar="WHY", help="raise budgets, too, for this reason"
    )
    arguments = parse_arguments(parser, smoke="--rows 1")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with process_group(PLACEMENT, timedelta(minutes=1)):
        ledger = count(arguments.rows or len(ROWS))
    reads = all_reads()
    print(*(f"host read in a pass: {read}" for read in reads), sep="\n")
    print(f"{time.process_time():.0f} s of CPU time")
    if arguments.rows:
        return
    known = table.load()
    if arguments.renew or arguments.reason:
        known = table.renewed(ledger, reads, known, arguments.reason)
        table.save(known)
    if problems := list(table.problems(ledger, reads, known)):
        sys.exit("\n".join(problems))


def _print(name: str, counts: Counts) -> None:
    parts = " | ".join(str(counts["launches"][part]) for part in PARTS)
    print(f"| {name} | {parts} | {total(counts)} | {total(counts, 'waits')} |", flush=True)


if __name__ == "__main__":
    main()
