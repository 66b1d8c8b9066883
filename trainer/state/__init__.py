"""State of a run that a checkpoint stores, and its saving and restoring."""
