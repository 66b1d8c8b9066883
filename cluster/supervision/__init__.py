"""The driver of a run: starts ranks, commits checkpoints, and restarts ranks after a loss."""
