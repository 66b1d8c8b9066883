"""Translating the lines of a large file on a cluster, in chunks that are done once."""
