"""Format, writing, commit, retention and reading of checkpoints."""
