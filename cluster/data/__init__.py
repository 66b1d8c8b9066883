"""Data workers, their streams to the ranks, and the trace of what they fed."""
