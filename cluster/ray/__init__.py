"""Ray's sessions, nodes, reservations and jobs, behind functions of our own."""
