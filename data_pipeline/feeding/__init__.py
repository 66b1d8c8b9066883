"""From a dataset to micro-batches: mixture, windows, plan, steps."""
