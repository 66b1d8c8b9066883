"""Recorder of rank 0, and Weights & Biases as a view of its lines."""
