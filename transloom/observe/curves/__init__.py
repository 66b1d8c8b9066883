"""Curves of a record, read by seeking, thinned and indexed."""
