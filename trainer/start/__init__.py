"""Start of a run: its folder, and the origin of its first weights."""
