"""Metrics file, status and other records of a run."""
