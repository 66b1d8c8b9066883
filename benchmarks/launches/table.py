"""Compare a ledger with its committed budgets and rules.

    counts of each row ─▶ above the budget of a part?          ─┐
                       ─▶ rules between rows, unmet and listed? ├─▶ problems, each in one line
    host reads in a pass ─▶ listed?                            ─┘

`budgets.json` has the budgets, the rules that are not met yet with their figures, and the host
reads that a pass still has. Renewing lowers budgets and empties the lists; a higher budget needs a
reason, which is kept in the file.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.launches.counter import PARTS
from benchmarks.launches.reads import HostRead
from benchmarks.launches.steps import ROWS, Counts, Row, total

FILE = Path(__file__).with_name("budgets.json")
RENEW = "benchmarks/launches/ledger.py --renew"
KINDS = ("launches", "waits")
# Launches of stages 2 and 3 before gradients were summed in buckets.
BEFORE = {2: 5742, 3: 2954}

Ledger = Mapping[str, Counts]  # by the name of a row or of a plain loop


@dataclass(frozen=True)
class Rule:
    """Upper limit of a row's count, which may depend on other rows."""

    name: str
    figure: float
    limit: float

    @property
    def is_met(self) -> bool:
        return self.figure <= self.limit


def rules(ledger: Ledger) -> Iterator[Rule]:
    """Yield the rules of a complete ledger."""
    for row in ROWS:
        counts = ledger[str(row)]
        launches = total(counts)
        yield Rule(f"{row}: waits", total(counts, "waits"), 4 if row.stage < 2 else 6)
        in_passes = counts["waits"]["passes"] + counts["waits"]["reduction"]
        yield Rule(f"{row}: waits in a pass", in_passes, 0)
        if row.is_verified:
            exact = total(ledger[str(_with(row, is_verified=False))])
            yield Rule(f"{row}: launches above exact", launches - exact, 60)
        elif row.numerics == "exact":
            fast = total(ledger[str(_with(row, numerics="fast"))])
            yield Rule(f"{row}: launches ≤ 1.15 × fast", launches, 1.15 * fast)
        elif row.stage in BEFORE:
            share = {2: 0.55, 3: 0.8}[row.stage]
            limit = share * BEFORE[row.stage]
            yield Rule(f"{row}: launches ≤ {share} × {BEFORE[row.stage]:,}", launches, limit)
        else:
            plain = total(ledger[row.plain])
            yield Rule(f"{row}: launches ≤ 0.95 × plain loop", launches, 0.95 * plain)
    fast = total(ledger[str(Row("translation", "bf16", 1, "fast"))])
    yield Rule("translation bf16 stage 1 fast: launches of base", fast, 1950)


def problems(ledger: Ledger, reads: Sequence[HostRead], table: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each difference from the table that must be fixed.

    Args:
        ledger: the counts of all rows and plain loops.
        reads: the host reads in a pass.
        table: the content of `FILE`.
    """
    for row in map(str, ROWS):
        for kind, part, count, budget in _differences(ledger[row], table["budgets"].get(row, {})):
            if count > budget:
                unit = "" if kind == "launches" else " waits"
                yield f"{row}, {part}: {budget} → {count}{unit} ({count - budget:+})"
    unmet = table["unmet"]
    for rule in rules(ledger):
        if rule.is_met and rule.name in unmet:
            yield f"{rule.name}: is met ({rule.figure:g} ≤ {rule.limit:g}). Renew: {RENEW}"
        if not rule.is_met and rule.name not in unmet:
            yield f"{rule.name}: {rule.figure:g}, expected at most {rule.limit:g}"
    keys = {read.key for read in reads}
    yield from (f"host read in a pass: {read}" for read in reads if read.key not in table["reads"])
    for key in table["reads"]:
        if key not in keys:
            yield f"{key}: is no longer a host read. Renew: {RENEW}"


def renewed(
    ledger: Ledger, reads: Sequence[HostRead], table: Mapping[str, Any], reason: str | None = None
) -> dict[str, Any]:
    """Return the table with lower budgets and without rules and reads that are gone.

    Args:
        ledger: the counts of all rows and plain loops.
        reads: the host reads in a pass.
        table: the former table.
        reason: why budgets rise and rules are no longer met; None if neither may happen.
    """
    budgets: dict[str, Any] = {}
    raised = list(table["raised"])
    for row in map(str, ROWS):
        old = table["budgets"].get(row, {})
        budgets[row] = {kind: {} for kind in KINDS}
        for kind, part, count, budget in _differences(ledger[row], old):
            if count > budget and reason and old:
                raised.append(f"{row}, {part} {kind}: {budget} → {count}: {reason}")
            budgets[row][kind][part] = count if reason else min(count, budget)
    unmet = {
        rule.name: f"{rule.figure:g} > {rule.limit:g}"
        for rule in rules(ledger)
        if not rule.is_met and (reason or rule.name in table["unmet"])
    }
    known = sorted({read.key for read in reads if reason or read.key in table["reads"]})
    return {"budgets": budgets, "unmet": unmet, "reads": known, "raised": raised}


def load() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(FILE.read_text())
    return table


def save(table: Mapping[str, Any]) -> None:
    FILE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")


def _differences(
    counts: Counts, budgets: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[str, str, int, int]]:
    for kind in KINDS:
        for part in PARTS:
            yield kind, part, counts[kind][part], budgets.get(kind, {}).get(part, 0)


def _with(row: Row, **changes: Any) -> Row:
    return Row(**{**vars(row), **changes})
