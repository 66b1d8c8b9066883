"""The tasks' halves in plain numpy; `data_pipeline.batching.task` says what one has to know."""
