"""The text: corpora, SentencePiece, shards, manifest, batch plan. Plain numpy."""

from foundation import moved

moved.install()
