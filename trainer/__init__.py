"""Training step: loop, ZeRO engine, checkpoints, metrics."""

from foundation import moved

moved.install()
