r"""Pipes in tables look the same on GitHub and on the site.

GitHub splits a row at every `|` that has no backslash, also in code. The site's hook removes the
backslash, which Python-Markdown would show.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.scripts import imported_script

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "benchmarks/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
CELL_BORDER = re.compile(r"(?<!\\)\|")
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")


def wrong_rows(markdown):
    """Return table rows that GitHub splits wrongly, and other lines with `\\|` in code."""
    wrong, columns = [], 0
    for line in FENCE.sub("", markdown).splitlines():
        if not line.lstrip().startswith("|"):
            columns = 0
            wrong += [line] if any(r"\|" in c[0] for c in CODE.finditer(line)) else []
            continue
        cells = len(CELL_BORDER.findall(line.strip())) - 1
        columns = columns or cells
        wrong += [line] if cells != columns else []
    return wrong


@pytest.fixture(scope="module")
def hooks():
    with imported_script("site/hooks.py") as module:
        yield module


def adapted(hooks, markdown, uri="how-to/page.md"):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri), meta={})
    return hooks.on_page_markdown(markdown, page, None, None), page.meta


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_all_rows_of_a_table_have_equal_numbers_of_cells_on_github(page):
    assert wrong_rows(page.read_text(encoding="utf-8")) == []


def test_all_rows_of_a_table_in_generated_pages_have_equal_numbers_of_cells(hooks):
    wrong = {uri: wrong_rows(page()) for uri, page in hooks.GENERATED.items()}
    assert wrong
    assert not any(wrong.values()), wrong


def test_wrong_rows_finds_unescaped_and_needlessly_escaped_pipes():
    table = "| a | b |\n|---|---|\n| `x|y` | z |\n"
    assert wrong_rows(table) == ["| `x|y` | z |"]
    assert wrong_rows(table.replace("x|y", r"x\|y")) == []
    assert wrong_rows("text `a\\|b`\n") == ["text `a\\|b`"]


def test_the_site_shows_no_backslash_in_code_of_tables(hooks):
    rows = "| `RUN\\|FOLDER` and ``a\\|b`` | this \\| that |\n```text\n| `x\\|y` |\n```\n`c\\|d`\n"
    expected = rows.replace("RUN\\|", "RUN|").replace("a\\|b", "a|b")
    assert adapted(hooks, rows)[0] == expected


def test_the_hook_excludes_only_decision_records_from_search(hooks):
    assert adapted(hooks, "text", "decisions/0002-pure-plan.md")[1] == {"search": {"exclude": True}}
    assert adapted(hooks, "text", "how-to/resume.md")[1] == {}
