"""Loading of the networks of commands that read texts, such as `classify` and `fill`."""

from pathlib import Path
from typing import Any, TypeVar

from cluster.terminal import warn
from transloom.inference.engine_names import Precision
from transloom.inference.trained_network import TextReader

R = TypeVar("R", bound=TextReader[Any])


def load_reader(kind: type[R], run: Path, checkpoint: str | None, precision: Precision) -> R:
    """Load a run's network, and warn about each checkpoint that was skipped."""
    reader = kind.load(run, checkpoint, precision)
    for reason in reader.passed_over:
        warn(f"{reason}; using {reader.checkpoint.path}")
    return reader
