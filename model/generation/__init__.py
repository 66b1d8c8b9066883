"""Generation: greedy and beam search for translations, sampling of continuations."""
