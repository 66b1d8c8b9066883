"""The installation sizes that make setup and make wheel print are correct."""

import importlib.metadata
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sizes
import torch

ROOT = Path(__file__).resolve().parents[2]


def said(monkeypatch: pytest.MonkeyPatch, folder: Path, free_gb: float) -> list[str]:
    disk = SimpleNamespace(free=int(free_gb * sizes.GB))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    return sizes.setup_lines("cuda", folder)


def test_setup_prints_sizes_and_warns_about_a_small_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sizes.SETUP["cuda"]
    (line,) = said(monkeypatch, tmp_path, size.disk)
    assert f"{size.download:g} GB to download, {size.disk:g} GB on disk" in line
    _, small = said(monkeypatch, tmp_path, 1.25)
    assert f"Only 1.2 GB are free in {tmp_path}, and {size.disk:.1f} GB are needed" in small


def test_hard_links_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "torch").open("wb") as file:
        file.truncate(2 * sizes.GB)  # a sparse file
    os.link(tmp_path / "torch", tmp_path / "again")
    assert sizes.disk_usage(tmp_path) == 2 * sizes.GB
    assert len(said(monkeypatch, tmp_path, sizes.SETUP["cuda"].disk - 2)) == 1


@pytest.mark.long
def test_the_printed_sizes_are_close_to_this_environments() -> None:
    lock = "cpu" if torch.version.cuda is None else "cuda"
    for file, size in ((lock, sizes.SETUP[lock]), ("runtime", sizes.WHEEL[lock])):
        text = (ROOT / "locks" / f"{file}.txt").read_text()
        measured = installed_gigabytes(re.findall(r"^([a-z0-9.-]+)==", text, re.MULTILINE))
        assert measured == pytest.approx(size.disk, rel=0.1), file


def installed_gigabytes(packages: Iterable[str]) -> float:
    """Return the total size of the given packages, if installed here."""
    total = 0
    for name in packages:
        try:
            files = importlib.metadata.distribution(name).files or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for path in (Path(str(file.locate())) for file in files):
            total += path.lstat().st_size if path.exists() else 0
    return total / sizes.GB
