"""The network: attention, layers, loss, decoding. Plain torch."""

from foundation import moved

moved.install()
