"""The text: corpora, SentencePiece, shards, manifest, batch plan. Plain numpy."""
