"""Mutants: planted bugs, each with the tests that must fail with it.

    tests/mutants/NAME.toml ──read_mutant──▶ Mutant ──changed_files──▶ the files with the bug

`scripts/mutants` plants them; `tests/test_mutants.py` checks that they still fit the code.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path("tests", "mutants")  # below the repository's root


class MutantError(Exception):
    """Error of a mutant file that cannot be read, or that no longer fits the code."""


@dataclass(frozen=True)
class Change:
    """One edit of a file: the old code, which occurs once in it, and the new code."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """One planted bug.

    Attributes:
        what: the bug, in a sentence.
        tests: files or test ids for pytest; at least one of them fails with the bug.
        changes: the edits that plant it.
    """

    name: str
    what: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]


def read_mutants(root: Path = ROOT) -> list[Mutant]:
    """Return all mutants, sorted by name."""
    return [read_mutant(path) for path in sorted((root / FOLDER).glob("*.toml"))]


def read_mutant(path: Path) -> Mutant:
    """Read one mutant.

    Raises:
        MutantError: a key is missing or unknown, or the file is not TOML.
    """
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        changes = tuple(Change(**change) for change in values.pop("change"))
        mutant = Mutant(path.stem, tests=tuple(values.pop("tests")), changes=changes, **values)
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise MutantError(
            f"{path} needs `what` (the bug), `tests` (those that see it) and tables [[change]] "
            f"with `file`, `old` and `new`: {error}"
        ) from error
    if not mutant.tests or not mutant.changes:
        raise MutantError(f"{path} names no tests or no [[change]]: it needs at least one of each")
    return mutant


def changed_files(mutant: Mutant, root: Path = ROOT) -> dict[str, str]:
    """Return the content of the changed files below `root`, with the bug, by path.

    Raises:
        MutantError: the old code of a change does not occur exactly once.
    """
    contents: dict[str, str] = {}
    for change in mutant.changes:
        path = root / change.file
        if change.file not in contents:
            contents[change.file] = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (count := contents[change.file].count(change.old)) != 1:
            raise MutantError(
                f"{mutant.name} does not apply: {change.file} has its old code {count} times, "
                f"expected once. Update `old` and `new` from the code as it is:\n{change.old}"
            )
        contents[change.file] = contents[change.file].replace(change.old, change.new)
    return contents
