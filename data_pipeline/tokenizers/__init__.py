"""SentencePiece and Marian tokenizers, and sampling of subwords."""
