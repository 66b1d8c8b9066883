"""Detection of lost, hung and failed processes of a run."""
