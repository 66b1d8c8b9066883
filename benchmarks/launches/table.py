"""Compare the counts of a ledger with the committed budgets and rules.

    counts of each row and part ─▶ above the budget?                      ─┐
    rules between rows          ─▶ broken, unless listed as unmet? Or met? ├─▶ a line per problem
    host reads in a pass        ─▶ listed? Or gone?                       ─┘

`budgets.json` has the budgets, the unmet rules with their figures, and the known host reads. To
renew it lowers the budgets and shortens the lists. A higher budget needs a reason, which the file
keeps.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.launches.counter import LaunchCounter, Place
from benchmarks.launches.steps import ROWS, Row

FILE = Path(__file__).with_name("budgets.json")
RENEW = "renew the table with benchmarks/launches/ledger.py --renew"
# Launches before gradients were summed in buckets, by ZeRO stage.
STAGE_2, STAGE_3 = 5742, 2954
PASS = ("passes", "reduction")  # parts that belong to a pass

Counts = Mapping[str, int]  # counts by row and part


class Rule(NamedTuple):
    """Upper limit of a row's count, which may depend on other rows."""

    name: str
    figure: float
    limit: float


def counts_of(row: Row, counter: LaunchCounter) -> dict[str, int]:
    """Return the counts by row and part, such as "GPT bf16 stage 1 fast, waits in exchange"."""
    counts = {f"{row}, {part}": launches for part, launches in counter.launches.items()}
    for (part, _), waits in counter.waits.items():
        key = f"{row}, waits in {part}"
        counts[key] = counts.get(key, 0) + waits
    return counts


def reads_in_passes(counter: LaunchCounter) -> set[Place]:
    return {place for part, place in counter.waits if part in PASS}


def total(counts: Counts, row: Row, *, of_waits: bool = False) -> int:
    """Return the launches or the waits of a step."""
    return sum(
        count
        for key, count in counts.items()
        if key.startswith(f"{row}, ") and (", waits in " in key) == of_waits
    )


def rules(counts: Counts) -> Iterator[Rule]:
    """Yield the rules of a complete ledger."""
    launches = {row: total(counts, row) for row in ROWS}
    for row in ROWS:
        if row.loop == "plain":
            continue
        fast, plain = row._replace(loop="fast"), row._replace(loop="plain")
        if row.loop == "exact":
            limits = {"1.15 × fast": 1.15 * launches[fast]}
        elif row.loop == "verified":
            limits = {"exact + 60": launches[row._replace(loop="exact")] + 60}
        elif row.stage < 2:
            limits = {"0.95 × plain loop": 0.95 * launches[plain]}
        else:
            limits = {2: {"0.55 × 5,742": 0.55 * STAGE_2}, 3: {"0.8 × 2,954": 0.8 * STAGE_3}}[
                row.stage
            ]
        if row == Row("translation", "bf16", 1, "fast"):
            limits["1,950"] = 1950
        yield from (Rule(f"{row}: launches ≤ {n}", launches[row], limits[n]) for n in limits)
        waits = total(counts, row, of_waits=True)
        yield Rule(f"{row}: waits", waits, 4 if row.stage < 2 else 6)


def problems(counts: Counts, reads: Collection[Place], table: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each difference from the table that must be fixed.

    Args:
        counts: the counts of all rows.
        reads: the host reads in a pass.
        table: the content of `FILE`.
    """
    for key, count in counts.items():
        if count > (budget := table["budgets"].get(key, 0)):
            yield f"{key}: {budget} → {count} ({count - budget:+})"
    for name, figure, limit in rules(counts):
        if figure > limit and name not in table["unmet"]:
            yield f"{name}: {figure:g}, expected at most {limit:g}"
        if figure <= limit and name in table["unmet"]:
            yield f"{name}: is met with {figure:g}, so {RENEW}"
    yield from (f"Host read in a pass: {read}" for read in reads if read.key not in table["reads"])
    gone = set(table["reads"]) - {read.key for read in reads}
    yield from (f"{key} has no host read any more, so {RENEW}" for key in sorted(gone))


def renewed(
    counts: Counts, reads: Collection[Place], table: Mapping[str, Any], reason: str = ""
) -> dict[str, Any]:
    """Return the table with lower budgets, and without rules that are met and reads that are gone.

    Args:
        counts: the counts of all rows.
        reads: the host reads in a pass.
        table: the former table.
        reason: why counts rise and rules are broken; empty if neither is allowed.
    """
    old = table["budgets"]
    budgets = {
        key: count if reason else min(count, old.get(key, 0)) for key, count in counts.items()
    }
    rise = sum(max(0, budgets[key] - old.get(key, 0)) for key in budgets)
    unmet = {
        name: f"{figure:g} > {limit:g}"
        for name, figure, limit in rules(counts)
        if figure > limit and (reason or name in table["unmet"])
    }
    known = sorted({read.key for read in reads if reason or read.key in table["reads"]})
    raised = table["raised"] + [f"{reason} ({rise:+})"] * (rise > 0 and bool(old))
    return {"budgets": budgets, "unmet": unmet, "reads": known, "raised": raised}


def load() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(FILE.read_text())
    return table


def save(table: Mapping[str, Any]) -> None:
    FILE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
