"""Programs that replace those of a cluster in tests without a cluster."""
