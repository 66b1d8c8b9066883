"""Commands in a page of docs, for tests that run them."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from click.testing import Result

DOCS = Path(__file__).resolve().parents[2] / "docs"


def block(page: str, kind: str) -> str:
    """Return the text of a page's only block of this kind, such as "bash laptop"."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(found)


def blocks(page: str, kind: str) -> list[str]:
    """Return the texts of all of a page's blocks of this kind."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    """Return the arguments of all commands in a page's blocks `bash`, one command per line."""
    lines = [line for text in blocks(page, "bash") for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def run_inline(transloom: Callable[..., Result], command: list[str]) -> Result:
    """Run a command of a page, which must succeed; train without Ray."""
    without_ray = ["--inline"] if command[0] == "train" else []
    result = transloom(*command, *without_ray)
    assert result.exit_code == 0, (command, result.output)
    return result


class Step(NamedTuple):
    """A command of a page, and the output that the page shows after it."""

    command: str
    shown: str


def steps(page: str) -> list[Step]:
    """Return all blocks `bash` of a page, each with the block `text` that follows it, if any."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found: list[Step] = []
    for kind, content in re.findall(r"^```(bash|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if kind == "bash":
            found.append(Step(content, ""))
        else:
            last = found.pop()
            assert not last.shown, f"two outputs of {last.command}"
            found.append(Step(last.command, content))
    return found
