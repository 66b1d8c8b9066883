"""What runs write: lines, progress, checkpoints, W&B's files."""
