"""Compare the metrics files and checkpoints of two runs."""
