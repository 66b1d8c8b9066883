"""Losses, as sums over the tokens of a batch."""
