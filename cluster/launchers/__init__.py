"""The ways to a cluster: how a run gets to machines that this process does not run on."""
