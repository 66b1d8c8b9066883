"""Ray, hosts, Slurm and processes; striking them at a moment."""
