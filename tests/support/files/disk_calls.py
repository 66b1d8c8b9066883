"""Recording of the system calls that make files durable: syncs and renames, in their order."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DiskCall = tuple[str, Path]


def record_disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[DiskCall]:
    """Record the calls of this process in the returned list: ("sync", path), ("rename", target)."""
    calls: list[DiskCall] = []
    fsync = os.fsync

    def synced(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        calls.append(("sync", Path(f"/proc/self/fd/{number}").readlink()))
        fsync(file)

    def recorded(move: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any) -> None:
            calls.append(("rename", Path(target)))
            move(source, target)

        return renamed

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, recorded(getattr(os, name)))
    return calls


def by_name(calls: list[DiskCall]) -> list[tuple[str, str]]:
    """Return the calls with the names of files and folders instead of paths."""
    return [(call, path.name) for call, path in calls]
