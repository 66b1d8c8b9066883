"""Run folders: what a run leaves on disk or in an object store, and its readers."""

from pathlib import Path

# Default parent directory of run folders.
RUNS = Path("runs")
