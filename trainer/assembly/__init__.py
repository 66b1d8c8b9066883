"""Construction of a rank from its parts, for training or for a replay."""
