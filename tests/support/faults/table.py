"""The results of the fault matrix, as a Markdown table for docs/benchmarks/recovery.md."""

from collections.abc import Sequence
from pathlib import Path

from support.faults.case import Result

HEADER = """\
| fault | moment | seconds to the first new step | lost steps | outcome |
|---|---|---|---|---|
"""


class Table:
    """Rows in the order of their arrival, written at once, so that no interruption loses them.

    ``path``: the file to which the rows are appended; None only keeps them in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.text = HEADER
        if path and not path.exists():
            path.write_text(HEADER)

    def add(self, results: Sequence[Result], what: str = "") -> None:
        """Add rows of results; `what` is the kind of run, empty for the usual kind."""
        rows = "".join(_row(result, what) for result in results)
        self.text += rows
        if self._path:
            with self._path.open("a") as file:
                file.write(rows)


def _row(result: Result, what: str) -> str:
    fault = ", ".join(filter(None, [result.fault, what]))
    seconds = "–" if result.seconds is None else f"{result.seconds:.1f}"
    return f"| {fault} | {result.moment} | {seconds} | {result.lost_steps} | {result.outcome} |\n"
