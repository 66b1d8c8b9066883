"""Read, thin and index the curves of a run's metrics file (the record) without reading it whole."""
