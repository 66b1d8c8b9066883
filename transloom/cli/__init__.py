"""Command line: one module for each command, with its arguments and its work."""
