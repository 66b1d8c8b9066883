"""Windows, plans and streams that turn a dataset into micro-batches."""
