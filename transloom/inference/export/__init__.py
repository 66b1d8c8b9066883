"""Export of runs as models of other libraries, a file for each library and task."""
