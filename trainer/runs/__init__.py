"""The folder of a run, and runs that start with the weights of another one."""
