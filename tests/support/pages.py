"""The commands of a page of docs, for tests that run them."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def block(page: str, kind: str) -> str:
    """The text of a page's one block of that kind, such as "bash laptop"."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(found)


def blocks(page: str, kind: str) -> list[str]:
    """The texts of all of a page's blocks of that kind."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
