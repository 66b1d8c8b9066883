"""Export the record in other programs' formats."""
