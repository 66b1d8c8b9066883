"""Inspection of trained networks: all intermediate values, and alignments."""
