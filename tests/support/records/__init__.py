"""Output of runs: record lines, progress, checkpoints, and files of W&B."""
