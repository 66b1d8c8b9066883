"""Data sides of the tasks, in numpy; `data_pipeline.batching.task` is their interface."""
