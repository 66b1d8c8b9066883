"""Writing translations: greedy and beam search."""
