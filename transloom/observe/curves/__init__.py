"""Read, thin and index the curves of a metrics file (a run's record) by seeking."""
