"""State of a run that a checkpoint stores; saving and restoring of this state."""
