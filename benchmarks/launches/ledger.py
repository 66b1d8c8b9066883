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

from benchmarks.launches.counter import PARTS, Place
from benchmarks.launches.steps import FORMS, PLACEMENT, ROWS, count, read_on_meta
from benchmarks.launches.table import counts_of, load, problems, reads_in_passes, renewed, save
from benchmarks.support.command_line import parse_arguments
from trainer.process.distributed import process_group


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, help="count only the first rows, and check nothing")
    parser.add_argument("--renew", action="store_true", help="lower the budgets to the counts")
    parser.add_argument("--raise", dest="reason", default="", help="raise budgets for this reason")
    arguments = parse_arguments(parser, smoke="--rows 2")
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    counts: dict[str, int] = {}
    reads: set[Place | None] = {read_on_meta(form, form.build()) for form in FORMS.values()}
    print(f"| launches | {' | '.join(PARTS)} | total | waits |\n|---|{'--:|' * (len(PARTS) + 2)}")
    with process_group(PLACEMENT, timedelta(minutes=1)):
        for row in ROWS[: arguments.rows]:
            counter = count(row)
            reads |= reads_in_passes(counter)
            counts |= counts_of(row, counter)
            cells = [counter.launches[part] for part in PARTS]
            cells += [sum(cells), counter.waits.total()]
            print(f"| {row} | {' | '.join(map(str, cells))} |", flush=True)
    places = sorted(read for read in reads if read)
    print(*(f"Host read in a pass: {place}" for place in places), sep="\n")
    print(f"{time.process_time():.0f} s of CPU time")
    if arguments.rows:
        return
    known = load()
    if arguments.renew or arguments.reason:
        known = renewed(counts, places, known, arguments.reason)
        save(known)
    if differences := list(problems(counts, places, known)):
        sys.exit("\n".join(differences))


if __name__ == "__main__":
    main()
