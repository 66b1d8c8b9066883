"""Plan a replay, and compare its steps with the record."""
