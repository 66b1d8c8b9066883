"""Format, commit, retention and reading of checkpoints."""
