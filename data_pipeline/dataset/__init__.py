"""A prepared dataset: its manifest, its shards, where they lie, and whether they are whole."""
