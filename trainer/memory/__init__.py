"""Whether a step fits into memory, and how much there is."""
