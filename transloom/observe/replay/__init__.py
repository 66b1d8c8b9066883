"""Plan a replay of recorded steps, and compare its results with the metrics file."""
