"""Entry point of a job's training process: the command line with all training modules imported."""

import transloom.cli.train_run  # noqa: F401
from transloom.cli.app import main

__all__ = ["main"]
