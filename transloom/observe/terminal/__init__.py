"""Render commands' answers and runs in a terminal."""
