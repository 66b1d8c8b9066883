"""Training halves of the tasks, in torch; `task.py` defines their interface."""
