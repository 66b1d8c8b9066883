"""The figure of a network: every box with its true shapes, and parameters that add up.

settings, vocabulary sizes ─networks─▶ the network's parameters by name (no memory is taken)
    ─encoder_decoder, decoder_only, encoder_only─▶ boxes in columns ─layout─▶ places ─drawing─▶ SVG
"""
