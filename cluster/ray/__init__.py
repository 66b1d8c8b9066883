"""Ray's sessions, nodes, reservations and jobs, behind functions of this package."""
