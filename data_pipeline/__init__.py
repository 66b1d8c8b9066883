"""Text pipeline, in numpy without torch: corpora, tokenizers, shards, manifest and batch plan."""

from foundation import moved

moved.install()
