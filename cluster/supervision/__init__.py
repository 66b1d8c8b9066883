"""The driver of a run: starts ranks, commits checkpoints, starts ranks again after a loss."""
