"""Networks in plain torch: attention, layers, losses, decoding, and conversion of weights."""
