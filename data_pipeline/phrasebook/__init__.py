"""The built-in corpus: French and English sentences from a grammar."""
