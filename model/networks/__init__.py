"""Complete networks: encoder-decoder, decoder, encoder."""
