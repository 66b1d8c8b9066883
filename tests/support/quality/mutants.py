"""Mutants: bugs kept as patches, each with the tests that must fail with it.

    tests/mutants/NAME.patch ──read──▶ Mutant ──changed_files──▶ the files as the bug has them

`scripts/mutants` plants them, `tests/test_mutants.py` sees that they still fit the code.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("tests", "mutants")  # below the repository's root

_HUNK = re.compile(r"^@@ .*@@.*\n", re.MULTILINE)


class MutantError(Exception):
    """A patch that cannot be read, or that does not fit the code any more."""


@dataclass(frozen=True)
class Mutant:
    """One planted bug.

    Attributes:
        what: the bug, in a sentence.
        tests: what pytest is given, files or test ids; at least one of them fails with the bug.
        hunks: by file, the texts that are there and those that the bug has in their place.
    """

    name: str
    what: str
    tests: tuple[str, ...]
    hunks: dict[str, list[tuple[str, str]]]


def read_mutants(root: Path = ROOT) -> list[Mutant]:
    """All that are kept, by name."""
    return [read_mutant(path) for path in sorted((root / FOLDER).glob("*.patch"))]


def read_mutant(path: Path) -> Mutant:
    """A patch: ``What:`` and ``Tests:`` lines, then a unified diff.

    Raises:
        MutantError: it has no such lines or no change.
    """
    head, *diffs = re.split(r"^--- a/.*\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    fields = dict(re.findall(r"^(What|Tests): +(.+)$", head, flags=re.MULTILINE))
    hunks = {}
    for diff in diffs:
        file = re.match(r"\+\+\+ b/(\S+)\n", diff)
        if file:
            hunks[file.group(1)] = [_before_and_after(text) for text in _HUNK.split(diff)[1:]]
    if fields.keys() != {"What", "Tests"} or not any(hunks.values()):
        raise MutantError(
            f"{path} needs a line 'What: the bug', a line 'Tests: …' with the tests that see it, "
            "and a unified diff with paths a/… and b/…"
        )
    return Mutant(path.stem, fields["What"], tuple(fields["Tests"].split()), hunks)


def changed_files(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """The content that the bug gives to files below ``root``, by path.

    A place is known by its text, not by its line number, so a patch holds while that text does.

    Raises:
        MutantError: a text that the patch changes is not there, or not exactly once.
    """
    contents = {}
    for file, hunks in mutant.hunks.items():
        path = root / file
        content = path.read_text(encoding="utf-8") if path.is_file() else ""
        for before, after in hunks:
            if (count := content.count(before)) != 1:
                raise MutantError(
                    f"{mutant.name}.patch does not apply: {file} has {count} times what it "
                    f"changes, not once. Make the patch anew from the code as it is:\n{before}"
                )
            content = content.replace(before, after)
        contents[file] = content
    return contents


def _before_and_after(hunk: str) -> tuple[str, str]:
    """A hunk's text without and with the change."""
    lines = [line for line in hunk.splitlines(keepends=True) if line[0] in " +-"]
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    return before, after
