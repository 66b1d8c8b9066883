"""Count the bytes that are read of a file."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest


def count_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """Count the bytes that are read from each file that ``Path.open`` opens in binary mode."""
    read: Counter[Path] = Counter()
    original = Path.open

    class CountedFile(io.FileIO):
        def readinto(self, buffer: Any) -> Any:
            size = super().readinto(buffer)
            read[Path(str(self.name))] += size or 0
            return size

        def readall(self) -> Any:
            content = super().readall()
            read[Path(str(self.name))] += len(content or b"")
            return content

    def opened(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "rb":
            return io.BufferedReader(CountedFile(path, mode))
        if mode == "r+b":
            return io.BufferedRandom(CountedFile(path, mode))
        return original(path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    return read
