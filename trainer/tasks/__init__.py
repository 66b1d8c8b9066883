"""Torch sides of the tasks; `task.py` defines their interface."""
