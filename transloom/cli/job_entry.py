"""The entry point of a job's training process: the command line, with all that trains imported."""

import transloom.cli.train_run  # noqa: F401
from transloom.cli.app import main

__all__ = ["main"]
