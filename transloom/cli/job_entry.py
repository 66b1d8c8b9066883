"""The entry point of a job's training process: the command line, with all that trains imported."""

import transloom.commands.train  # noqa: F401
from transloom.cli.app import main

__all__ = ["main"]
