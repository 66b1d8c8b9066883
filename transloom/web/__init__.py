"""Shared parts of HTTP servers: authentication, connections, listening, files of a page."""
