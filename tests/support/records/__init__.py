"""Output of runs: lines, progress, checkpoints, W&B's files."""
