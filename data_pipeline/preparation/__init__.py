"""From corpora to a dataset, once."""
