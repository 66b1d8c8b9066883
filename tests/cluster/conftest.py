"""Fixtures that tests of several packages share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.two_corpora import transloom, two_corpora  # noqa: F401  (fixtures)


@pytest.fixture
def parent() -> Iterator[Path]:
    """Return a temporary folder that all users can reach."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder).resolve()
