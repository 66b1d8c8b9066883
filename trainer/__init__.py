"""Training of a run's ranks: loop, ZeRO engine, tasks, state."""
