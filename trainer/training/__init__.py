"""Training loop, and the parts of a step that it calls."""
