"""Run folders, and warm starts."""
