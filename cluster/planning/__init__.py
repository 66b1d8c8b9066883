"""Checks and estimates of a run before it trains: feasibility, memory, disk and time."""
