"""Metrics file of a run, its readers, and Weights & Biases as a view of it."""
