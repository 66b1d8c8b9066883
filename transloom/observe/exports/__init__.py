"""Export the metrics file (a run's record) in other programs' formats."""
