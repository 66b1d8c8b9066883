"""The text pipeline: corpora, SentencePiece, shards, manifest and batch plan. Plain numpy."""

from foundation import moved

moved.install()
