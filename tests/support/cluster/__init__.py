"""Ray, hosts, Slurm and processes for tests, and faults at chosen points of a run."""
