"""Functions for Ray's sessions, nodes, reservations and jobs."""
