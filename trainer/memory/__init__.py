"""Checks that a step fits into the memory."""
