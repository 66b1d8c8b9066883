"""Every `transloom` command in a code block of the documentation can be parsed.

Tests of single pages run the commands of these pages; this test only parses those of all pages.
"""

import re
import shlex
from pathlib import Path

import pytest
import typer

from transloom.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^ *```(?:bash|console|sh)\b[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
OPERATORS = set("|;&()<>")


def commands(text):
    """Yield the argument lists of the transloom commands in the code blocks of a page."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            current = None
            for word in [*words, ";"]:
                if set(word) <= OPERATORS:
                    if current:
                        yield current
                    current = None
                elif current is not None:
                    current += [word] * (word != "…")
                elif word.rpartition("/")[2] == "transloom":
                    current = []


def parse(arguments):
    """Parse the arguments as the command line does, without calling the command."""
    command = typer.main.get_command(app)
    context = command.make_context("transloom", [], resilient_parsing=True)
    _, rest, _ = command.make_parser(context).parse_args(args=list(arguments))
    while rest:
        name = rest.pop(0)
        assert hasattr(command, "commands"), f"{name!r} is one argument too many"
        assert name in command.commands, f"there is no command {name!r}"
        command = command.get_command(context, name)
        context = command.context_class(command, parent=context, info_name=name)
        _, rest, _ = command.make_parser(context).parse_args(args=rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_every_page_can_be_parsed(page):
    for arguments in commands(page.read_text(encoding="utf-8")):
        try:
            parse(arguments)
        except Exception as error:
            pytest.fail(f"transloom {shlex.join(arguments)}: {error}")


def test_commands_are_extracted_from_blocks_and_invalid_ones_refused():
    text = "```bash\n$ transloom train a \\\n  --inline | head\ncd x && transloom runs\n```\n"
    assert list(commands(text)) == [["train", "a", "--inline"], ["runs"]]
    for wrong in (["trian"], ["train", "a", "--no-such"], ["jobs", "lits"], ["runs", "a", "b"]):
        with pytest.raises(Exception, match=r"no command|[Nn]o such option|one argument too many"):
            parse(wrong)


def test_the_documentation_has_many_commands():
    found = [a for page in PAGES for a in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 50
