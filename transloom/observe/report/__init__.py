"""Freeze the dashboard's page of a run in one file."""
