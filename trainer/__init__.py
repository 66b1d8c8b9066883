"""Training of a run's ranks: loop, ZeRO engine, checkpoints, metrics."""

from foundation import moved

moved.install()
