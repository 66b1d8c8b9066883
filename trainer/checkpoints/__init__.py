"""Checkpoints: their format, how they are written, committed, kept and read."""
