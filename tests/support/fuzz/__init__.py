"""Randomly damaged files, read in a separate process: `scripts/fuzz`."""
