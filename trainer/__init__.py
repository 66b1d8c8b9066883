"""What happens at a step: loop, ZeRO engine, checkpoints, metrics."""
