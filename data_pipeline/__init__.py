"""Text pipeline, in numpy without torch: corpora, tokenizers, shards, manifest and batch plan."""
