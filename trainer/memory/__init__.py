"""Available memory, and checks that a step fits into it."""
