"""The state of a run as a checkpoint holds it, and how it is saved and restored."""
