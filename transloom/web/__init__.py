"""Shared parts of HTTP servers: authentication, connections, listening sockets and page files."""
