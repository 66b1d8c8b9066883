"""State of a run as a checkpoint holds it; saving and restoring it."""
