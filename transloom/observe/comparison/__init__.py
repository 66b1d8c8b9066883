"""Compare the records of two runs."""
