"""Numbers in the README equal those of the tables that they come from."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
TABLE = (ROOT / "docs/reference/what-ran-where.md").read_text(encoding="utf-8")


def rows_of_the_gpu_table() -> list[list[str]]:
    table = TABLE.partition("<!-- scripts/gpu_check adopt writes this table -->")[2]
    lines = table.partition("<!-- end of the table -->")[0].splitlines()
    rows = [re.split(r" *(?<!\\)\| *", line)[1:-1] for line in lines if line.startswith("| ")]
    return rows[1:]  # without the header row


def test_the_readmes_gpu_results_equal_the_table() -> None:
    rows = rows_of_the_gpu_table()
    results = Counter(row[2] for row in rows)
    assert (
        f"{results['passed']} of {len(rows)} paths passed, {results['failed']} failed, "
        f"{results['skipped']} skipped, {results['not run']} not run"
    ) in README
    (slower,) = [row[3] for row in rows if "Transformer base: below a plain" in row[0]]
    assert f"base was {slower.partition(' %')[0]} % slower than a plain loop" in README


def test_the_readme_names_the_torch_version_of_the_gpu_if_not_pinned() -> None:
    (ran,) = {m for row in rows_of_the_gpu_table() for m in re.findall(r"torch (\d+\.\d+)", row[4])}
    lock = (ROOT / "locks/cpu.txt").read_text()
    (pinned,) = re.findall(r"^torch==(\d+\.\d+)", lock, re.MULTILINE)
    assert ran == pinned or f"torch {ran}, not the pinned {pinned}" in README
