"""What starts a run where people have machines: scripts for Slurm, manifests for Kubernetes."""
