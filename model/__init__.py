"""The network: attention, layers, loss, decoding. Plain torch."""
