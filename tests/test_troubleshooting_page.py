"""The messages that docs/troubleshooting.md quotes occur in the source.

The page quotes a message in a ```text block, with … for variable parts. One string of the source
must contain all fixed parts in this order.
"""

import ast
import re
from pathlib import Path

import pytest

from cluster.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
VARIES = "…"


def quoted_messages(page):
    """Return the messages of the page, each as one line."""
    blocks = re.findall(r"^```text\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [" ".join(block.split()) for block in blocks]


def strings_of(source):
    """Return the strings of a file except docstrings, with … for computed parts."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = (string_of(node) for node in ast.walk(tree) if id(node) not in statements)
    return [" ".join(text.split()) for text in found if text]


def string_of(node):
    """Return the text of a literal, an f-string or a sum of these; None for everything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(string_of(part) or VARIES for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = string_of(left), string_of(right)
            return None if texts == (None, None) else "".join(text or VARIES for text in texts)
    return None


def is_in(message, strings):
    """Return whether one of the strings has all fixed parts of a message, in this order."""
    parts = [re.escape(part) for part in message.split(VARIES)]
    pattern = re.compile(".*".join(parts))
    return any(pattern.search(text) for text in strings)


@pytest.fixture(scope="module")
def strings():
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return [text for file in files for text in strings_of(file.read_text())]


def test_every_message_of_the_page_occurs_in_the_source(strings):
    messages = quoted_messages(PAGE.read_text())
    assert len(messages) >= 25
    assert [message for message in messages if not is_in(message, strings)] == []


def test_each_message_has_a_cause_and_a_remedy():
    sections = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert len({section.partition("\n")[0] for section in sections}) == len(sections)
    for section in sections:
        assert quoted_messages(section), section
        assert re.search(r"\*\*Cause\.\*\*.*\*\*Remedy\.\*\*", section, re.DOTALL), section


def test_a_changed_message_does_not_occur_in_the_source(strings):
    messages = [max(quoted_messages(PAGE.read_text()), key=len)]
    assert is_in(messages[0], strings)
    words = messages[0].split()
    changed = [*words[:-1], "yesterday"]
    swapped = messages[0].split(VARIES)[::-1]
    assert not is_in(" ".join(changed), strings)
    assert not is_in(VARIES.join(swapped), strings)
    assert not is_in(f"Ray is tired, because {VARIES}", strings)


def test_computed_parts_of_strings_match_only_variable_parts():
    strings = strings_of(
        '"""Ray is lost."""\nraise E(f"{n} of {m} " "ranks" + f" on {node}, lost")'
    )
    assert is_in("… of … ranks on …, lost", strings)
    assert not is_in("2 of … ranks", strings)
    assert not is_in("Ray is lost", strings)
