"""Exporters that write a run in another library's format, one file per library and task."""
