"""The entry point of a job's training process: the command line, with all that trains imported."""

import cluster.commands.train  # noqa: F401
from cluster.cli.app import main

__all__ = ["main"]
