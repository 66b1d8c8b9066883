"""Launchers: submission of a run to machines other than this one."""
