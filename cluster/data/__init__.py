"""Data workers, their streams to the ranks, and the trace of the data that they supplied."""
