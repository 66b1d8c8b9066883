"""Files made wrong by chance, read in a process of their own: `scripts/fuzz`."""
