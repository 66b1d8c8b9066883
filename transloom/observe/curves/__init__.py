"""Read, thin and index the curves of a record by seeking."""
