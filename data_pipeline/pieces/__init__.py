"""SentencePiece models, and random segmentations with their pieces."""
