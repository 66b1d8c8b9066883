"""Numpy halves of the tasks; `data_pipeline.batching.task` defines their interface."""
