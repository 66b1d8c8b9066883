"""From a dataset to micro-batches: windows, plans, streams."""
