"""Render the table of verified code paths as Markdown, and write it to the docs.

The results in the docs are kept as JSON. The module needs only Python.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu_check.plan import STAGES, Stage
from benchmarks.gpu_check.results import (
    Results,
    ResultsError,
    Row,
    read_results,
    replace_text,
)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "reference" / "what-ran-where.md"
KEPT = ROOT / "docs" / "gpu-check.json"  # the rows that the table in the docs shows
BEGIN = "<!-- scripts/gpu_check adopt writes this table -->"
END = "<!-- end of the table -->"
HEADER = "| path | where | result | figure | versions | GPU and driver | date |"
HEADER += "\n|---|---|---|---|---|---|---|"


def markdown(rows: Mapping[str, Row], stages: Sequence[Stage] = STAGES) -> str:
    """Return the table of all planned rows as Markdown; rows without a result are "not run"."""
    lines = [HEADER]
    for stage in stages:
        for planned in stage.rows:
            row = rows.get(f"{stage.name}/{planned.key}") or Row(
                stage.name, planned.key, "not run", date=""
            )
            figure = row.shown_figure()
            if row.detail and row.result in ("failed", "skipped"):
                figure = f"{figure}; {row.detail}" if figure else row.detail
            where = planned.where if planned.where == "–" else f"`{planned.where}`"
            cells = [f"{stage.name}: {planned.path}", where, row.result, figure]
            cells += [row.versions, row.driver, row.date]
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(lines) + "\n"


def adopt(file: Path | None, docs: Path = DOCS, kept: Path = KEPT) -> int:
    """Write results into the table of the docs, and return the number of new rows.

    Args:
        file: results of a GPU; None renders the results that were adopted earlier.

    Raises:
        ResultsError: the file cannot be used or is for a CPU, or the docs lack the markers.
    """
    results = read_results(kept) if kept.exists() else Results("cuda")
    new = [] if file is None else _of_a_gpu(file)
    # A skipped row on one machine does not replace a result from another machine.
    new = [row for row in new if row.result != "skipped" or row.name not in results.rows]
    results.add(new)
    text = docs.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ResultsError(f"{docs} lacks the lines {BEGIN!r} and {END!r}. Restore them.")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    replace_text(docs, f"{before}{BEGIN}\n\n{markdown(results.rows)}\n{END}{after}")
    if new:
        results.write(kept)
    return len(new)


def _of_a_gpu(file: Path) -> list[Row]:
    """Return the rows that ran on a GPU, without rows whose stage did not start."""
    results = read_results(file)
    if results.device != "cuda":
        raise ResultsError(
            f"{file} has results of --device {results.device}, which verify nothing on a GPU. "
            "Adopt a file that `scripts/gpu_check run` wrote on a machine with a GPU."
        )
    return [row for row in results.rows.values() if row.driver]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
