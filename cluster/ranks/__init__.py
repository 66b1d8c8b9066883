"""Processes that train: the supervisor's interface to them, and their actors."""
