"""Draw the figure of a network: boxes with their true shapes and numbers of parameters.

settings, vocabulary sizes ─networks─▶ the network's parameters by name (no memory is used)
  ─encoder_decoder, decoder_only, encoder_only─▶ boxes in columns
  ─layout─▶ places ─drawing─▶ SVG
"""
