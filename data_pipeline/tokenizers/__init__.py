"""SentencePiece models, and sampling of subwords."""
