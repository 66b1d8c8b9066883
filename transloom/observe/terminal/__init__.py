"""Show runs and the results of commands in a terminal."""
