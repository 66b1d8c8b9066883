"""The results of the fault matrix as a Markdown table, to be pasted into benchmarks/README.md."""

from pathlib import Path

from support.faults.case import Result

HEADER = """\
| fault | moment | seconds to the first new step | lost steps | outcome |
|---|---|---|---|---|
"""


class Table:
    """Rows in the order in which they come; written at once, so that no interruption loses them.

    ``path``: where they are written to, after those that are there already; None keeps them only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.text = HEADER
        if path and not path.exists():
            path.write_text(HEADER)

    def add(self, result: Result) -> None:
        seconds = "–" if result.seconds is None else f"{result.seconds:.1f}"
        row = (
            f"| {result.fault} | {result.moment} | {seconds} | {result.lost_steps} | "
            f"{result.outcome} |\n"
        )
        self.text += row
        if self._path:
            with self._path.open("a") as file:
                file.write(row)
