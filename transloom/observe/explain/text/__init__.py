"""Pages about networks with one stack: masked models and language models."""
