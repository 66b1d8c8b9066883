"""The folder of a run, and runs that start with the weights of another one."""

from pathlib import Path

# Where runs lie unless said otherwise.
RUNS = Path("runs")
