"""Registries that extensions add to: schedules, optimizers, losses."""
