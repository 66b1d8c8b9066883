"""Find packages of other projects that have overwritten one of ours in an installation.

The names of our packages are generic, and pip lets a project with a package `trainer` overwrite
`trainer/__init__.py`. When that project is removed, pip deletes the file.

This file needs only Python's standard library, and the command line runs it by its path: importing
`cluster` could already execute another project's code.
"""

import base64
import csv
import hashlib
import re
from pathlib import Path

_DISTRIBUTION = "transloom"


def overwritten_package(installation: Path) -> str | None:
    """Return a message about a package whose `__init__.py` differs from the wheel's, or None.

    The bytes of the files are compared with the digests in the wheel's `RECORD`; no file is
    imported. A checkout contains no `RECORD`, because its editable installation is elsewhere.
    """
    records = sorted(installation.glob(f"{_DISTRIBUTION}-*.dist-info/RECORD"))
    expected = [_digests(record) for record in records]  # after a failed update there are several
    for name in sorted({name for digests in expected for name in digests}):
        path = installation / name
        found = _digest(path.read_bytes()) if path.is_file() else None
        if not any(digests.get(name) in ("", found) for digests in expected):
            return _message(installation, name, is_missing=found is None)
    return None


def _digests(record: Path) -> dict[str, str]:
    """Return the digest in a `RECORD` of each top-level `__init__.py`; "" if it has no digest."""
    with record.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) > 1]
    return {row[0]: row[1] for row in rows if re.fullmatch(r"\w+/__init__\.py", row[0])}


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.decode().rstrip('=')}"


def _message(installation: Path, name: str, *, is_missing: bool) -> str:
    owners = [
        record.parent.name.split("-")[0]
        for record in sorted(installation.glob("*.dist-info/RECORD"))
        if name in _digests(record)
    ]
    others = " ".join(owner for owner in owners if owner != _DISTRIBUTION)
    path = installation / name
    repair = (
        "install transloom's wheel again, with `pip install --force-reinstall --no-deps WHEEL`. "
        "Use an environment of transloom alone to keep other projects' packages from its names"
    )
    if is_missing:
        return (
            f"{path} is missing, as after the removal of another project with this file: {repair}"
        )
    if others:
        return (
            f"{path} is not transloom's: the project {others} has overwritten it. Run "
            f"`pip uninstall {others}`, then {repair}"
        )
    return f"{path} is not the file of transloom's wheel, as its RECORD shows: {repair}"
