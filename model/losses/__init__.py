"""Sums of losses over the tokens of a batch."""
