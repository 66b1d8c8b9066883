"""Contents of folders, for comparisons."""

import hashlib
from pathlib import Path


def hashes_in(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
