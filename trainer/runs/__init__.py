"""Run folders, and runs that start from the weights of another run."""

from pathlib import Path

# Default parent directory of run folders.
RUNS = Path("runs")
